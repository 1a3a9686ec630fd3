#include "grammar/grammar_ir.h"

#include <algorithm>
#include <functional>

#include "support/error.h"

namespace ltm::grammar {

std::uint32_t GrammarIr::add(const Node& node) {
    nodes.push_back(node);
    return static_cast<std::uint32_t>(nodes.size() - 1);
}

std::uint32_t GrammarIr::add_set(CodePointSet set) {
    sets.push_back(std::move(set));
    return static_cast<std::uint32_t>(sets.size() - 1);
}

std::uint32_t GrammarIr::add_group(NodeKind kind, const std::vector<std::uint32_t>& parts) {
    if (parts.empty()) return add({});
    if (parts.size() == 1) return parts.front();
    if (kind == NodeKind::choice) {
        const auto single = [this](std::uint32_t part) {
            return nodes[part].kind == NodeKind::chars ||
                   (nodes[part].kind == NodeKind::literal && nodes[part].count == 1);
        };
        if (std::all_of(parts.begin(), parts.end(), single)) {
            std::vector<CodePointSet::Range> ranges;
            for (const std::uint32_t part : parts) {
                if (nodes[part].kind == NodeKind::literal) {
                    const auto c = static_cast<std::uint32_t>(text[nodes[part].index]);
                    ranges.emplace_back(c, c);
                } else {
                    const auto& more = sets[nodes[part].index].ranges();
                    ranges.insert(ranges.end(), more.begin(), more.end());
                }
            }
            return add({NodeKind::chars, add_set(CodePointSet(std::move(ranges)))});
        }
    }
    Node node{kind, static_cast<std::uint32_t>(children.size()), static_cast<std::uint32_t>(parts.size())};
    children.insert(children.end(), parts.begin(), parts.end());
    return add(node);
}

bool is_nullable(const GrammarIr& ir, const std::vector<bool>& rule_nullable, std::uint32_t number) {
    const Node& node = ir.nodes[number];
    const auto child = [&](std::uint32_t i) { return is_nullable(ir, rule_nullable, ir.children[node.index + i]); };
    switch (node.kind) {
        case NodeKind::empty:
            return true;
        case NodeKind::chars:
        case NodeKind::literal:
            return false;
        case NodeKind::rule:
            return rule_nullable[node.index];
        case NodeKind::repeat:
            return node.min == 0 || is_nullable(ir, rule_nullable, node.index);
        case NodeKind::sequence:
            for (std::uint32_t i = 0; i < node.count; ++i) {
                if (!child(i)) return false;
            }
            return true;
        case NodeKind::choice:
            for (std::uint32_t i = 0; i < node.count; ++i) {
                if (child(i)) return true;
            }
            return false;
    }
    return false;
}

namespace {

// Visits every rule reference of a node: visit(node, leftmost, last). `leftmost` if nothing need stand before it,
// `last` if nothing can follow it inside the rule.
class References {
  public:
    using Visit = std::function<void(const Node&, bool leftmost, bool last)>;

    References(const GrammarIr& ir, const std::vector<bool>& nullable, Visit visit)
        : ir_(ir), nullable_(nullable), visit_(std::move(visit)) {}

    void walk(std::uint32_t number, bool leftmost, bool last) const {
        const Node& node = ir_.nodes[number];
        switch (node.kind) {
            case NodeKind::rule:
                visit_(node, leftmost, last);
                break;
            case NodeKind::repeat:
                walk(node.index, leftmost, last && node.max == 1);
                break;
            case NodeKind::choice:
                for (std::uint32_t i = 0; i < node.count; ++i) walk(ir_.children[node.index + i], leftmost, last);
                break;
            case NodeKind::sequence:
                for (std::uint32_t i = 0; i < node.count; ++i) {
                    const std::uint32_t child = ir_.children[node.index + i];
                    walk(child, leftmost, last && i + 1 == node.count);
                    leftmost = leftmost && is_nullable(ir_, nullable_, child);
                }
                break;
            default:
                break;
        }
    }

  private:
    const GrammarIr& ir_;
    const std::vector<bool>& nullable_;
    Visit visit_;
};

using Graph = std::vector<std::vector<std::uint32_t>>;

// Tarjan's strongly connected components without recursion. Components come out callees first.
std::vector<std::uint32_t> components(const Graph& graph, std::uint32_t& count, std::vector<std::uint32_t>& order) {
    const std::size_t n = graph.size();
    constexpr std::uint32_t unseen = 0;
    std::vector<std::uint32_t> index(n, unseen);
    std::vector<std::uint32_t> low(n);
    std::vector<std::uint32_t> component(n, kUnbounded);
    std::vector<std::uint32_t> stack;
    std::vector<std::pair<std::uint32_t, std::size_t>> path;
    std::uint32_t next = 1;
    count = 0;
    for (std::uint32_t start = 0; start < n; ++start) {
        if (index[start] != unseen) continue;
        path.emplace_back(start, 0);
        while (!path.empty()) {
            const std::uint32_t v = path.back().first;
            if (path.back().second == 0) {
                index[v] = low[v] = next++;
                stack.push_back(v);
            }
            if (path.back().second < graph[v].size()) {
                const std::uint32_t w = graph[v][path.back().second++];
                if (index[w] == unseen) {
                    path.emplace_back(w, 0);
                } else if (component[w] == kUnbounded) {
                    low[v] = std::min(low[v], index[w]);
                }
                continue;
            }
            if (graph[v].empty()) path.back().second = 1;
            if (low[v] == index[v]) {
                for (;;) {
                    const std::uint32_t w = stack.back();
                    stack.pop_back();
                    component[w] = count;
                    order.push_back(w);
                    if (w == v) break;
                }
                ++count;
            }
            path.pop_back();
            if (!path.empty()) low[path.back().first] = std::min(low[path.back().first], low[v]);
        }
    }
    return component;
}

bool can_end(const GrammarIr& ir, const std::vector<bool>& rule_ends, std::uint32_t number) {
    const Node& node = ir.nodes[number];
    switch (node.kind) {
        case NodeKind::rule:
            return rule_ends[node.index];
        case NodeKind::repeat:
            return node.min == 0 || can_end(ir, rule_ends, node.index);
        case NodeKind::sequence:
            for (std::uint32_t i = 0; i < node.count; ++i) {
                if (!can_end(ir, rule_ends, ir.children[node.index + i])) return false;
            }
            return true;
        case NodeKind::choice:
            for (std::uint32_t i = 0; i < node.count; ++i) {
                if (can_end(ir, rule_ends, ir.children[node.index + i])) return true;
            }
            return false;
        default:
            return true;
    }
}

// The least fixed point of a property that spreads from callees to callers.
template <typename Holds>
std::vector<bool> spread(const GrammarIr& ir, const std::vector<std::uint32_t>& order, const Holds& holds) {
    std::vector<bool> result(ir.rules.size(), false);
    std::uint64_t work = 0;
    for (bool changed = true; changed;) {
        changed = false;
        work += ir.nodes.size() + 1;
        if (work > 500'000'000)
            throw Error(ErrorCode::grammar, "grammar: the rules refer to each other in too long circles");
        for (const std::uint32_t rule : order) {
            if (!result[rule] && holds(result, ir.rules[rule].node)) {
                result[rule] = true;
                changed = true;
            }
        }
    }
    return result;
}

std::string circle(const GrammarIr& ir, const Graph& graph, const std::vector<std::uint32_t>& component,
                   std::uint32_t start) {
    // Follow edges inside the component until a rule comes again.
    std::vector<std::uint32_t> path{start};
    std::vector<bool> seen(graph.size(), false);
    for (;;) {
        const std::uint32_t v = path.back();
        if (seen[v]) break;
        seen[v] = true;
        for (const std::uint32_t w : graph[v]) {
            if (component[w] == component[start]) {
                path.push_back(w);
                break;
            }
        }
    }
    std::string text;
    bool inside = false;
    std::size_t shown = 0;
    for (const std::uint32_t v : path) {
        inside = inside || v == path.back();
        if (!inside) continue;
        if (++shown > 12) return text + " -> …";
        text += (text.empty() ? "" : " -> ") + ir.rules[v].name;
    }
    return text;
}

}  // namespace

RuleFacts analyse(const GrammarIr& ir) {
    const std::size_t n = ir.rules.size();
    RuleFacts facts;
    Graph graph(n);
    const std::vector<bool> none(n, false);
    for (std::uint32_t rule = 0; rule < n; ++rule) {
        References(ir, none, [&](const Node& node, bool, bool) {
            graph[rule].push_back(node.index);
        }).walk(ir.rules[rule].node, true, true);
        std::sort(graph[rule].begin(), graph[rule].end());
        graph[rule].erase(std::unique(graph[rule].begin(), graph[rule].end()), graph[rule].end());
    }
    std::uint32_t groups = 0;
    facts.group = components(graph, groups, facts.order);
    facts.recursive.assign(groups, false);
    facts.tail_only.assign(groups, true);

    facts.nullable = spread(ir, facts.order, [&](const std::vector<bool>& known, std::uint32_t node) {
        return is_nullable(ir, known, node);
    });
    const std::vector<bool> ends = spread(
        ir, facts.order, [&](const std::vector<bool>& known, std::uint32_t node) { return can_end(ir, known, node); });

    Graph left(n);
    for (std::uint32_t rule = 0; rule < n; ++rule) {
        References(ir, facts.nullable, [&](const Node& node, bool leftmost, bool last) {
            if (leftmost) left[rule].push_back(node.index);
            if (facts.group[node.index] == facts.group[rule]) {
                facts.recursive[facts.group[rule]] = true;
                if (!last) facts.tail_only[facts.group[rule]] = false;
            }
        }).walk(ir.rules[rule].node, true, true);
    }

    std::uint32_t left_groups = 0;
    std::vector<std::uint32_t> left_order;
    const std::vector<std::uint32_t> left_group = components(left, left_groups, left_order);
    for (std::uint32_t rule = 0; rule < n; ++rule) {
        for (const std::uint32_t callee : left[rule]) {
            if (left_group[callee] == left_group[rule]) {
                throw Error(ErrorCode::grammar, "grammar: line " + std::to_string(ir.rules[rule].line) + ": rule '" +
                                                    ir.rules[rule].name +
                                                    "' is left-recursive: " + circle(ir, left, left_group, rule) +
                                                    "; put something before the rule's reference to itself");
            }
        }
    }

    facts.reachable.assign(n, false);
    std::vector<std::uint32_t> todo{ir.root};
    facts.reachable[ir.root] = true;
    while (!todo.empty()) {
        const std::uint32_t rule = todo.back();
        todo.pop_back();
        for (const std::uint32_t callee : graph[rule]) {
            if (!facts.reachable[callee]) {
                facts.reachable[callee] = true;
                todo.push_back(callee);
            }
        }
    }
    for (std::uint32_t rule = 0; rule < n; ++rule) {
        if (!facts.reachable[rule]) {
            facts.unused.push_back(ir.rules[rule].name);
        } else if (!ends[rule]) {
            throw Error(ErrorCode::grammar, "grammar: line " + std::to_string(ir.rules[rule].line) + ": rule '" +
                                                ir.rules[rule].name +
                                                "' can never end: every alternative needs a rule that needs it again");
        }
    }
    return facts;
}

}  // namespace ltm::grammar
