// A grammar as read: rules over nodes, before anything is compiled.
#pragma once

#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "grammar/code_points.h"

namespace ltm::grammar {

constexpr std::uint32_t kUnbounded = std::numeric_limits<std::uint32_t>::max();

enum class NodeKind : std::uint8_t {
    empty,     // the empty string
    chars,     // one character of a set
    literal,   // a run of characters
    sequence,  // children, one after another
    choice,    // one of the children
    repeat,    // the child, min to max times
    rule,      // another rule
};

struct Node {
    NodeKind kind = NodeKind::empty;
    std::uint32_t index =
        0;  // chars: set; literal: offset in text; sequence, choice: offset in children; rule: its number
    std::uint32_t count = 0;  // literal: characters; sequence, choice: children; repeat: the child's node in `index`
    std::uint32_t min = 0;    // repeat
    std::uint32_t max = 0;    // repeat; kUnbounded if there is no bound
    std::uint32_t line = 0;   // rule: where the reference stands, from 1
    std::uint32_t column = 0;
};

struct Rule {
    std::string name;
    std::uint32_t node = 0;
    std::uint32_t line = 0;  // of the definition; 0: not defined
    std::uint32_t column = 0;
};

struct GrammarIr {
    std::vector<Node> nodes;
    std::vector<std::uint32_t> children;
    std::u32string text;  // of all literals
    std::vector<CodePointSet> sets;
    std::vector<Rule> rules;
    std::uint32_t root = 0;

    [[nodiscard]] std::uint32_t add(const Node& node);
    [[nodiscard]] std::uint32_t add_set(CodePointSet set);
    // Sequence or choice; one child stands for itself. A choice of single characters becomes one set.
    [[nodiscard]] std::uint32_t add_group(NodeKind kind, const std::vector<std::uint32_t>& parts);
};

// What follows from the rules alone.
struct RuleFacts {
    std::vector<bool> nullable;        // by rule: may be empty
    std::vector<bool> reachable;       // by rule: used by the root, directly or not
    std::vector<std::uint32_t> group;  // by rule: its strongly connected component, callees before callers
    std::vector<bool> recursive;       // by group: refers to itself
    std::vector<bool> tail_only;       // by group: refers to itself only as the last thing of a rule, so it is regular
    std::vector<std::uint32_t> order;  // rules, callees before callers
    std::vector<std::string> unused;   // names of rules that the root never reaches
};

// Throws Error(grammar) for left recursion and for rules that can never end, with the names of the rules.
[[nodiscard]] RuleFacts analyse(const GrammarIr& ir);

[[nodiscard]] bool is_nullable(const GrammarIr& ir, const std::vector<bool>& rule_nullable, std::uint32_t node);

}  // namespace ltm::grammar
