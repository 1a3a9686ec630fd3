// A grammar compiled to a small instruction set: a nondeterministic automaton with counters and, where rules truly
// recurse, calls.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "grammar/grammar_ir.h"
#include "grammar/limits.h"

namespace ltm::grammar {

enum class Op : std::uint8_t {
    chars,  // take one character of set a
    split,  // go to a or to b
    jump,   // go to a
    enter,  // begin counted repetition a with count 0; its test follows
    test,   // counted repetition a: one more round, or leave
    again,  // end of a round of counted repetition a
    call,   // rule whose code begins at a; b = 1 if nothing follows in this rule (no return needed)
    ret,    // end of a called rule
    match,  // end of the document
};

enum class LoopKind : std::uint8_t { none, unbounded, counted };

struct Instruction {
    Op op = Op::match;
    LoopKind loop = LoopKind::none;  // chars: the whole body of this kind of repetition
    std::uint32_t a = 0;
    std::uint32_t b = 0;
    std::uint32_t scope = 0;  // counters that are live here
};

// x{min,max} that is not written out. A body that may be empty has min 0: empty rounds are never needed.
struct Counter {
    std::uint32_t min = 0;
    std::uint32_t max = 0;
    std::uint32_t body = 0;       // first instruction of a round
    std::uint32_t exit = 0;       // first instruction after the repetition
    std::uint64_t empty_bit = 0;  // set if the body may be empty: such rounds are cut
};

// Counters live at an instruction, outermost first.
struct Scope {
    std::uint32_t parent = 0;
    std::uint32_t counter = 0;  // innermost; not valid for scope 0, which has none
    std::uint32_t depth = 0;
};

// One kind of character; characters of a class are alike to every set of the grammar. Class 0 is in no set.
struct ClassSet {
    CodePointSet points;
    bool single = false;          // one class only
    std::uint32_t only = 0;       // that class
    std::uint32_t one_point = 0;  // the only character, or 0
    std::vector<std::uint64_t> bits;

    [[nodiscard]] bool has(std::uint32_t cls) const noexcept {
        return single ? cls == only : ((bits[cls >> 6U] >> (cls & 63U)) & 1U) != 0;
    }
};

struct Program {
    std::vector<Instruction> code;
    std::vector<Counter> counters;
    std::vector<Scope> scopes;
    std::vector<ClassSet> sets;
    std::uint32_t classes = 1;
    std::uint32_t start = 0;
    bool has_calls = false;
    bool regular = true;  // no rule recurses other than as the last thing of a rule
    std::vector<std::string> unused_rules;

    [[nodiscard]] std::uint32_t class_of(std::uint32_t code_point) const noexcept {
        return code_point < 128 ? ascii[code_point] : class_of_wide(code_point);
    }
    [[nodiscard]] std::uint32_t depth(std::uint32_t pc) const noexcept { return scopes[code[pc].scope].depth; }
    // Counters live at pc, outermost first.
    [[nodiscard]] std::vector<std::uint32_t> live_counters(std::uint32_t pc) const;

    std::array<std::uint32_t, 128> ascii{};
    std::vector<std::uint32_t> starts;       // first code point of every interval, ascending
    std::vector<std::uint32_t> start_class;  // its class

  private:
    [[nodiscard]] std::uint32_t class_of_wide(std::uint32_t code_point) const noexcept;
};

// Throws Error(grammar) when a limit is broken or analyse() refuses the rules.
[[nodiscard]] Program compile(const GrammarIr& ir, const Limits& limits = {});

}  // namespace ltm::grammar
