// What a grammar may cost. A grammar is untrusted input: every bound is checked and named in the error that it raises.
#pragma once

#include <cstddef>
#include <cstdint>

namespace ltm::grammar {

struct Limits {
    std::size_t text_bytes = 1U << 20U;        // GBNF text
    std::size_t rules = 20'000;                // rules in one grammar
    std::size_t nesting = 200;                 // groups inside groups
    std::size_t rule_depth = 32;               // rules unfolded inside rules; deeper ones are called
    std::uint32_t repetition = 1'000'000;      // m and n of {m,n}
    std::size_t program = 150'000;             // instructions after unfolding
    std::size_t classes = 16'384;              // kinds of characters that the grammar tells apart
    std::size_t empty_loops = 64;              // counted repetitions of something that may be empty, in each other
    std::size_t threads = 20'000;              // positions that one state may stand at
    std::size_t states = 100'000;              // automaton states kept
    std::size_t state_bytes = 48U << 20U;      // memory of the states
    std::size_t transitions = 400'000;         // automaton transitions kept
    std::size_t frames = 200'000;              // distinct call stacks kept
    std::size_t stack_depth = 1'000;           // nesting of one document
    std::uint64_t work = 5'000'000;            // elementary steps in one call, some 10 ns each
    std::size_t completion_bytes = 1U << 20U;  // length of the shortest completion that is still computed
    std::size_t mask_bytes = 96U << 20U;       // masks kept
    std::size_t forced_bytes = 4'096;          // forced text looked at in one call
};

}  // namespace ltm::grammar
