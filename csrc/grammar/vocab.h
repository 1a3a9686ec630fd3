// A vocabulary as a byte trie, laid out so that one forward pass visits it depth first and whole subtrees can be
// skipped.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "grammar/code_points.h"

namespace ltm::grammar {

// What the tokenizer says of a token.
enum class TokenKind : std::uint8_t {
    text,      // ordinary, user-defined and byte tokens: their bytes are what they write
    excluded,  // control, unknown and unused tokens: never part of a document
    end,       // ends the generation: allowed when a document is complete
};

// Kinds of characters that subtrees are summarised by: ASCII punctuation one by one, the rest in blocks. A grammar's
// text slot that takes all characters of some kinds takes every token made of these kinds, without looking inside.
namespace kinds {
constexpr std::uint64_t kMalformed = 1ULL << 63U;  // bytes that are not UTF-8: never taken whole
constexpr std::uint64_t kRagged = 1ULL << 62U;     // a token ends inside a character
[[nodiscard]] std::uint64_t of_range(std::uint32_t low, std::uint32_t high) noexcept;
// Kinds all of whose characters are in the set.
[[nodiscard]] std::uint64_t inside(const CodePointSet& set) noexcept;
// Kinds some of whose characters are in the set.
[[nodiscard]] std::uint64_t touching(const CodePointSet& set) noexcept;
}  // namespace kinds

struct VocabOptions {
    std::size_t longest = 1024;  // bytes; a longer token is excluded
};

class Vocab {
  public:
    // pieces[i]: the bytes that token i writes, as llama_token_to_piece(special = true) gives them; kinds[i]: what it
    // is. Throws Error(invalid_argument) if the two differ in length or the vocabulary is empty or above 2^24 tokens.
    Vocab(const std::vector<std::string_view>& pieces, const std::vector<TokenKind>& kinds,
          const VocabOptions& options = {});

    // The same from serialise(). Throws Error(invalid_argument) if the blob is of another version, cut or damaged.
    [[nodiscard]] static Vocab deserialise(std::string_view blob);
    [[nodiscard]] std::string serialise() const;

    [[nodiscard]] std::uint32_t size() const noexcept { return size_; }
    [[nodiscard]] std::size_t words() const noexcept { return (size_ + 31) / 32; }
    [[nodiscard]] TokenKind kind(std::uint32_t token) const noexcept { return static_cast<TokenKind>(kinds_[token]); }
    [[nodiscard]] std::string_view piece(std::uint32_t token) const noexcept {
        return std::string_view(bytes_).substr(offsets_[token], offsets_[token + 1] - offsets_[token]);
    }
    [[nodiscard]] const std::vector<std::uint32_t>& ends() const noexcept { return ends_; }
    [[nodiscard]] std::size_t longest() const noexcept { return longest_; }
    // True if every byte that a character may go on with is a token: then no token leaves one unfinished for ever.
    [[nodiscard]] bool can_finish() const noexcept { return can_finish_; }

    // The trie. Node 0 is the root; nodes stand in depth-first order; the subtree of i is [i, end(i)).
    struct Node {
        std::uint32_t end;    // one past the last node of the subtree
        std::uint32_t token;  // tokens that end at this node: order[token … token of the next node)
        std::uint16_t depth;
        std::uint16_t
            chars;  // most characters (begun counts) that a token has from here on: this byte's and all after it
        std::uint8_t byte;
        std::uint8_t
            begins;  // 1: a character begins with this byte, so `chars` and `kinds` hold from its parent's place on
        std::uint16_t kinds;  // index into kind_sets(): of those characters
    };
    // One more node than there are: a sentinel with token = number of tokens.
    [[nodiscard]] const std::vector<Node>& nodes() const noexcept { return nodes_; }
    [[nodiscard]] std::uint32_t node_count() const noexcept { return static_cast<std::uint32_t>(nodes_.size() - 1); }
    [[nodiscard]] const std::vector<std::uint32_t>& order() const noexcept { return order_; }
    [[nodiscard]] const std::vector<std::uint64_t>& kind_sets() const noexcept { return kind_sets_; }
    [[nodiscard]] const std::vector<std::uint32_t>& text_mask() const noexcept { return text_mask_; }
    // The child of `node` by `byte`, or 0.
    [[nodiscard]] std::uint32_t child(std::uint32_t node, std::uint8_t byte) const noexcept {
        const Node* const all = nodes_.data();
        if (node == 0) return root_children_[byte];
        for (std::uint32_t i = node + 1; i < all[node].end; i = all[i].end) {
            if (all[i].byte >= byte) return all[i].byte == byte ? i : 0;
        }
        return 0;
    }
    [[nodiscard]] bool has_token(std::uint32_t node) const noexcept {
        return nodes_[node].token != nodes_[node + 1].token;
    }
    [[nodiscard]] std::size_t bytes() const noexcept;

  private:
    Vocab() = default;
    void build(std::size_t longest);
    void derive();

    std::uint32_t size_ = 0;
    std::size_t longest_ = 0;  // of the tokens in the trie
    std::string bytes_;
    std::vector<std::uint32_t> offsets_;
    std::vector<std::uint8_t> kinds_;
    std::vector<Node> nodes_;
    std::vector<std::uint32_t> order_;
    std::vector<std::uint64_t> kind_sets_;
    // Derived, not stored:
    std::vector<std::uint32_t> ends_;
    std::vector<std::uint32_t> text_mask_;
    std::uint32_t root_children_[256] = {};
    bool can_finish_ = true;
};

// True for the bytes of tokens that stand for something outside the text though the tokenizer calls them ordinary or
// user-defined: <|im_start|>, <｜User｜>, <unused12>, <start_of_turn>, [INST].
[[nodiscard]] bool looks_like_control(std::string_view piece) noexcept;

}  // namespace ltm::grammar
