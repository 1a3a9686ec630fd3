// Which tokens may come next: a bit set per state of the automaton, computed on first use by one pass over the trie.
//
// A pass notes for which other values of the counts it would have come out the same, so one mask serves a text slot at
// every place that is far enough from the slot's end. Equal masks are stored once.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "grammar/automaton.h"
#include "grammar/grammar.h"
#include "grammar/landing.h"
#include "grammar/vocab.h"

namespace ltm::grammar {

// Tokens allowed at one place.
struct Mask {
    std::vector<std::uint32_t> words;  // bit t & 31 of word t >> 5: token t is allowed
    std::vector<std::uint32_t> few;    // the allowed tokens, ascending, if there are at most kFew
    std::uint32_t count = 0;

    static constexpr std::uint32_t kFew = 512;
    [[nodiscard]] bool allows(std::uint32_t token) const noexcept {
        return ((words[token >> 5U] >> (token & 31U)) & 1U) != 0;
    }
    // Sets the logits of all tokens that are not allowed to -infinity.
    void apply(float* logits, std::size_t n) const;
};

using MaskPtr = std::shared_ptr<const Mask>;

struct MaskStatistics {
    std::size_t masks = 0;    // distinct bit sets kept
    std::size_t entries = 0;  // places that they serve
    std::size_t bytes = 0;
    std::size_t computed = 0;  // passes over the trie
    std::size_t shapes = 0;    // of the automaton
    std::size_t transitions = 0;
};

// Limits::work holds for one call; what belongs to one call of a matcher goes on with what is left of it.
enum class Work : std::uint8_t { fresh, continued };

// A grammar over a vocabulary, with everything computed so far. Shared by matchers; safe to use from several threads.
class MaskCache {
  public:
    MaskCache(std::shared_ptr<const Grammar> grammar, std::shared_ptr<const Vocab> vocab);

    [[nodiscard]] const Grammar& grammar() const noexcept { return *grammar_; }
    [[nodiscard]] const Vocab& vocab() const noexcept { return *vocab_; }
    [[nodiscard]] MaskStatistics statistics() const;

    [[nodiscard]] State start();
    [[nodiscard]] MaskPtr mask(const State& state);
    // Only tokens after which a complete document is reached within `budget` - 1 further ones. End tokens don't count
    // and are allowed exactly when the document is complete.
    [[nodiscard]] MaskPtr mask(const State& state, std::uint32_t budget);
    // Takes a token's bytes. False (and `state` unchanged): not allowed here.
    [[nodiscard]] bool advance(State& state, std::uint32_t token, Work work = Work::fresh);
    [[nodiscard]] bool advance_bytes(State& state, std::string_view bytes, Work work = Work::fresh);
    [[nodiscard]] bool complete(const State& state);
    // True if something may still be written.
    [[nodiscard]] bool open(const State& state);
    [[nodiscard]] std::uint32_t cost(const State& state, Work work = Work::fresh);
    [[nodiscard]] std::string forced(State& state, std::size_t most);
    // True if some token that begins with the bytes of trie node `node` and goes on may go on so from `state`.
    [[nodiscard]] bool continues(const State& state, std::uint32_t node, Work work = Work::fresh);
    // Computes the masks of the places along `bytes`, until `milliseconds` have passed. Returns how many were new.
    std::size_t prepare(const State& state, std::string_view bytes, double milliseconds);

  private:
    struct Entry {
        std::array<std::uint32_t, kMaxValues> low{};
        std::array<std::uint32_t, kMaxValues> width{};
        std::uint32_t landing = 0;  // no allowed token leads to a place that costs more
        MaskPtr mask;
    };
    friend class TrieWalk;

    const Entry& entry(const State& state);
    [[nodiscard]] MaskPtr keep(Mask&& mask);
    struct SetKinds {
        bool known = false;
        std::uint64_t inside = 0;    // kinds of characters all of which it holds
        std::uint64_t touching = 0;  // some of which it holds
    };
    void begin(Work work) noexcept {
        if (work == Work::fresh) automaton_.begin_call();
    }
    [[nodiscard]] const SetKinds& kinds_of(std::uint32_t set);

    std::shared_ptr<const Grammar> grammar_;
    std::shared_ptr<const Vocab> vocab_;
    mutable std::mutex mutex_;
    Automaton automaton_;
    Landing landing_;
    std::unordered_map<std::uint64_t, std::vector<Entry>> entries_;
    std::unordered_multimap<std::uint64_t, MaskPtr> masks_;
    std::vector<SetKinds> set_kinds_;  // by set
    struct SlotCost {
        bool known = false;
        std::uint32_t inside = 0;  // from a character's boundary inside a text slot with nothing owed
        std::uint32_t ragged = 0;  // from inside one of its characters, at most
    };
    std::vector<SlotCost> slot_costs_;  // by instruction
    std::size_t mask_bytes_ = 0;
    std::size_t computed_ = 0;
    std::size_t entry_count_ = 0;
};

}  // namespace ltm::grammar
