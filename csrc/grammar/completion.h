// The shortest way from any thread of the automaton to a complete document, character by character.
//
// Every thread has one canonical next character and one canonical next thread, so that a completion, once begun, is
// followed by its own rest. That is what makes landing certain: a plan is never traded for a worse one.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "grammar/automaton.h"

namespace ltm::grammar {

// A thread on its own, apart from a state.
struct LoneThread {
    std::uint32_t pc = 0;
    std::uint32_t stack = 0;
    std::vector<std::uint32_t> counts;
};

// Bytes that it takes to get from an instruction to the end of its round or rule, at least.
class Distances {
  public:
    explicit Distances(const Program& program);

    [[nodiscard]] std::uint64_t at(std::uint32_t pc) const noexcept { return distance_[pc]; }
    // The character that a set stands for in completions: a letter or digit if it has one, else its least.
    [[nodiscard]] static std::uint32_t representative(const CodePointSet& set) noexcept;

  private:
    std::vector<std::uint64_t> distance_;
};

// Moves `thread`, which stands after a character, to the instruction that takes the canonical next character, or to the
// match. Counts are cut to what still matters, so that threads with equal completions are equal.
void settle(const Distances& distances, Automaton& automaton, LoneThread& thread);

// The canonical completion in bytes from a state at a character's boundary, or inside a character. Throws
// Error(grammar) past Limits::completion_bytes.
[[nodiscard]] std::string completion(const Distances& distances, Automaton& automaton, const State& state);

}  // namespace ltm::grammar
