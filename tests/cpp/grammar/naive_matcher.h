// A slow oracle: backtracking over the rules as read, by positions in the text. It shares no code with the automaton.
#pragma once

#include <cstdint>
#include <set>
#include <string_view>
#include <vector>

#include "grammar/grammar_ir.h"

namespace oracle {

using ltm::grammar::GrammarIr;
using ltm::grammar::kUnbounded;
using ltm::grammar::Node;
using ltm::grammar::NodeKind;
using Positions = std::set<std::size_t>;

class NaiveMatcher {
  public:
    explicit NaiveMatcher(const GrammarIr& ir) : ir_(ir) {}

    bool accepts(const std::u32string& text) {
        text_ = &text;
        return ends(ir_.rules[ir_.root].node, {0}).contains(text.size());
    }

  private:
    Positions ends(std::uint32_t number, const Positions& from) {
        if (from.empty()) return {};
        const Node node = ir_.nodes[number];
        Positions result;
        switch (node.kind) {
            case NodeKind::empty:
                return from;
            case NodeKind::chars:
                for (const std::size_t p : from) {
                    if (p < text_->size() && ir_.sets[node.index].contains((*text_)[p])) result.insert(p + 1);
                }
                return result;
            case NodeKind::literal:
                for (const std::size_t p : from) {
                    if (text_->compare(p, node.count, ir_.text, node.index, node.count) == 0)
                        result.insert(p + node.count);
                }
                return result;
            case NodeKind::rule:
                return ends(ir_.rules[node.index].node, from);
            case NodeKind::sequence:
                result = from;
                for (std::uint32_t i = 0; i < node.count; ++i) result = ends(ir_.children[node.index + i], result);
                return result;
            case NodeKind::choice:
                for (std::uint32_t i = 0; i < node.count; ++i) {
                    const Positions more = ends(ir_.children[node.index + i], from);
                    result.insert(more.begin(), more.end());
                }
                return result;
            case NodeKind::repeat: {
                Positions now = from;
                if (node.min == 0) result = now;
                std::set<Positions> seen;
                for (std::uint32_t i = 1; i <= node.max && !now.empty(); ++i) {
                    now = ends(node.index, now);
                    if (i >= node.min) {
                        result.insert(now.begin(), now.end());
                        if (!seen.insert(now).second) break;
                    }
                }
                return result;
            }
        }
        return result;
    }

    const GrammarIr& ir_;
    const std::u32string* text_ = nullptr;
};

}  // namespace oracle
