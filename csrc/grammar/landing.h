// How many tokens it takes to end: for every thread the fewest tokens that write its canonical completion.
//
// It is an upper bound on the least number of tokens to any completion, and it can be kept to: the first token of the
// best way to write a completion leads to a state whose bound is at least one less. So a decoder that only takes tokens
// after which the bound still fits its budget always ends in time.
#pragma once

#include <cstdint>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "grammar/automaton.h"
#include "grammar/completion.h"
#include "grammar/vocab.h"

namespace ltm::grammar {

// The vocabulary can't write any completion, or only one beyond Limits::completion_bytes.
constexpr std::uint32_t kNever = 1U << 30U;

class Landing {
  public:
    Landing(const Distances& distances, Automaton& automaton, const Vocab& vocab)
        : distances_(distances), automaton_(automaton), vocab_(vocab) {}

    // Tokens to the end from `state`; 0 exactly if it is complete.
    [[nodiscard]] std::uint32_t cost(const State& state);
    // The same from the i-th thread of its shape alone.
    [[nodiscard]] std::uint32_t cost(const State& state, const Shape& shape, std::uint32_t i);
    // Cost of the place after the i-th thread's character: with the at most three bytes that a character may lack, a
    // bound for every place inside a character that this thread takes.
    [[nodiscard]] std::uint32_t cost_after(const State& state, const Shape& shape, std::uint32_t i);
    // True if the cost of every state of this shape is the same, as long as all its values are at least floor[i].
    struct Fixed {
        std::uint32_t cost = 0;
        bool known = false;
        std::array<std::uint32_t, kMaxValues> floor{};
    };
    // Remembers, by shape, the cost once no count of it matters any more.
    [[nodiscard]] const Fixed& fixed(const State& state);

    [[nodiscard]] std::size_t bytes() const noexcept {
        return nodes_.size() * 96 + fixed_.size() * 32 + partial_.size() * 40;
    }

  private:
    struct Node {
        LoneThread thread;
        std::uint32_t next = 0;   // node after this one's character; 0: not known yet
        std::uint32_t point = 0;  // its character; 0: the end
        std::array<std::uint32_t, 4> cost{kNever, kNever, kNever, kNever};  // from byte 0 … 3 of the character
        bool known = false;
    };

    std::uint32_t node(LoneThread&& thread);
    std::uint32_t next(std::uint32_t node);
    bool compute(std::uint32_t node);
    // Fewest tokens that write `bytes` (at most three) and then the completion of `follow`.
    std::uint32_t segment(std::string_view bytes, std::uint32_t follow);

    const Distances& distances_;
    Automaton& automaton_;
    const Vocab& vocab_;
    std::vector<Node> nodes_{1};
    std::unordered_multimap<std::uint64_t, std::uint32_t> index_;
    std::vector<Fixed> fixed_;                                  // by shape
    std::unordered_map<std::uint64_t, std::uint32_t> partial_;  // by shape and beginning of a character
};

}  // namespace ltm::grammar
