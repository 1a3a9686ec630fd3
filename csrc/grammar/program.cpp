#include "grammar/program.h"

#include <algorithm>
#include <map>
#include <unordered_map>

#include "support/error.h"

namespace ltm::grammar {
namespace {

constexpr std::uint64_t kHuge = 1ULL << 40U;
// Repetitions whose copies have at most this many instructions are written out: no counter is cheaper still.
constexpr std::uint64_t kWriteOut = 8;

std::uint64_t capped(std::uint64_t value) { return std::min(value, kHuge); }

std::uint64_t mix(std::uint64_t x) {
    x += 0x9E3779B97F4A7C15ULL;
    x = (x ^ (x >> 30U)) * 0xBF58476D1CE4E5B9ULL;
    x = (x ^ (x >> 27U)) * 0x94D049BB133111EBULL;
    return x ^ (x >> 31U);
}

// Which rules are unfolded where they are used, and which stay separate code that is called.
class Layout {
  public:
    Layout(const GrammarIr& ir, const RuleFacts& facts, const Limits& limits)
        : ir_(ir), facts_(facts), limits_(limits) {
        for (const std::uint64_t largest :
             {kHuge, std::uint64_t{4096}, std::uint64_t{512}, std::uint64_t{64}, std::uint64_t{0}}) {
            if (plan(largest) <= limits.program / 2 || largest == 0) break;
        }
        if (total_ > limits.program) {
            throw Error(ErrorCode::grammar, "grammar: it compiles to " + std::to_string(total_) +
                                                " instructions, the limit is " + std::to_string(limits.program));
        }
    }

    [[nodiscard]] bool called(std::uint32_t rule) const { return called_[rule]; }
    [[nodiscard]] bool calls() const { return std::find(called_.begin(), called_.end(), true) != called_.end(); }
    [[nodiscard]] bool writes_out(const Node& node, std::uint32_t group) const {
        return node.max != kUnbounded && capped(node.max * size(node.index, group)) <= kWriteOut;
    }
    [[nodiscard]] std::uint64_t size(std::uint32_t number, std::uint32_t group) const {
        const Node& node = ir_.nodes[number];
        switch (node.kind) {
            case NodeKind::empty:
                return 0;
            case NodeKind::chars:
                return 1;
            case NodeKind::literal:
                return node.count;
            case NodeKind::rule:
                if (facts_.group[node.index] == group || called_[node.index]) return 1;
                return size_[node.index];
            case NodeKind::repeat: {
                const std::uint64_t body = size(node.index, group);
                if (body == 0) return 0;
                if (node.max != kUnbounded && capped(node.max * body) <= kWriteOut) return node.max * (body + 1);
                return body + 3;
            }
            default: {
                std::uint64_t sum = 0;
                for (std::uint32_t i = 0; i < node.count; ++i) {
                    sum = capped(sum + size(ir_.children[node.index + i], group) +
                                 (node.kind == NodeKind::choice ? 2 : 0));
                }
                return sum;
            }
        }
    }

  private:
    std::uint64_t plan(std::uint64_t largest) {
        const std::size_t n = ir_.rules.size();
        size_.assign(n, 0);
        height_.assign(n, 0);
        called_.assign(n, false);
        total_ = 2;
        // `order` lists the rules of one group together, callees first.
        for (std::size_t i = 0; i < n;) {
            const std::uint32_t group = facts_.group[facts_.order[i]];
            std::size_t end = i;
            std::uint64_t sum = 0;
            std::uint32_t height = 0;
            for (; end < n && facts_.group[facts_.order[end]] == group; ++end) {
                const std::uint32_t rule = facts_.order[end];
                sum = capped(sum + size(ir_.rules[rule].node, group) + 1);
                height = std::max(height, height_of(ir_.rules[rule].node, group) + 1);
            }
            const bool must_call = facts_.recursive[group] && !facts_.tail_only[group];
            const bool call = must_call || sum > largest || height > limits_.rule_depth;
            for (; i < end; ++i) {
                const std::uint32_t rule = facts_.order[i];
                called_[rule] = call;
                size_[rule] = call ? 1 : sum;
                height_[rule] = call ? 0 : height;
                if (call && facts_.reachable[rule]) {
                    total_ = capped(total_ + size(ir_.rules[rule].node, kUnbounded) + 1);
                }
            }
        }
        total_ = capped(total_ + size_[ir_.root]);
        return total_;
    }

    [[nodiscard]] std::uint32_t height_of(std::uint32_t number, std::uint32_t group) const {
        const Node& node = ir_.nodes[number];
        switch (node.kind) {
            case NodeKind::rule:
                return facts_.group[node.index] == group || called_[node.index] ? 0 : height_[node.index];
            case NodeKind::repeat:
                return height_of(node.index, group);
            case NodeKind::sequence:
            case NodeKind::choice: {
                std::uint32_t height = 0;
                for (std::uint32_t i = 0; i < node.count; ++i) {
                    height = std::max(height, height_of(ir_.children[node.index + i], group));
                }
                return height;
            }
            default:
                return 0;
        }
    }

    const GrammarIr& ir_;
    const RuleFacts& facts_;
    const Limits& limits_;
    std::vector<std::uint64_t> size_;
    std::vector<std::uint32_t> height_;
    std::vector<bool> called_;
    std::uint64_t total_ = 0;
};

class Compiler {
  public:
    Compiler(const GrammarIr& ir, const RuleFacts& facts, const Limits& limits)
        : ir_(ir), facts_(facts), limits_(limits), layout_(ir, facts, limits) {}

    Program compile() {
        program_.scopes.push_back({});
        entry_.assign(ir_.rules.size(), kUnbounded);
        program_.start = 0;
        reference(ir_.root, kUnbounded);
        push({Op::match});
        while (!pending_.empty()) {
            const std::uint32_t rule = pending_.back();
            pending_.pop_back();
            entry_[rule] = here();
            emit(ir_.rules[rule].node, kUnbounded);
            push({Op::ret});
        }
        for (Instruction& instruction : program_.code) {
            if (instruction.op == Op::call) instruction.a = entry_[instruction.a];
        }
        for (std::size_t pc = 0; pc < program_.code.size(); ++pc) {
            Instruction& instruction = program_.code[pc];
            if (instruction.op != Op::call) continue;
            program_.has_calls = true;
            std::size_t next = pc + 1;
            for (int hops = 0; hops < 64 && program_.code[next].op == Op::jump; ++hops) next = program_.code[next].a;
            instruction.b = program_.code[next].op == Op::ret ? 1 : 0;
        }
        for (std::uint32_t rule = 0; rule < ir_.rules.size(); ++rule) {
            const std::uint32_t group = facts_.group[rule];
            if (facts_.reachable[rule] && facts_.recursive[group] && !facts_.tail_only[group]) program_.regular = false;
        }
        program_.unused_rules = facts_.unused;
        build_alphabet();
        return std::move(program_);
    }

  private:
    // The rules of a tail-recursive group, unfolded once for one use: a reference inside the group is a jump.
    struct Instance {
        std::uint32_t group;
        std::unordered_map<std::uint32_t, std::uint32_t> labels;
        std::vector<std::pair<std::uint32_t, std::uint32_t>> jumps;  // instruction, rule
        std::vector<std::uint32_t> todo;
    };

    [[nodiscard]] std::uint32_t here() const { return static_cast<std::uint32_t>(program_.code.size()); }

    std::uint32_t push(Instruction instruction) {
        if (program_.code.size() >= limits_.program) {
            throw Error(ErrorCode::grammar,
                        "grammar: it compiles to more than " + std::to_string(limits_.program) + " instructions");
        }
        instruction.scope = scope_;
        program_.code.push_back(instruction);
        return here() - 1;
    }

    std::uint32_t set_of(const CodePointSet& points) {
        const auto [it, added] =
            set_numbers_.emplace(points.ranges(), static_cast<std::uint32_t>(program_.sets.size()));
        if (added) program_.sets.push_back({points, false, 0, 0, {}});
        return it->second;
    }

    std::uint32_t set_of(std::uint32_t code_point) {
        const auto [it, added] = single_numbers_.emplace(code_point, 0);
        if (added) it->second = set_of(CodePointSet({{code_point, code_point}}));
        return it->second;
    }

    void reference(std::uint32_t rule, std::uint32_t group) {
        if (group != kUnbounded && facts_.group[rule] == group) {
            Instance& instance = *instance_;
            if (instance.labels.emplace(rule, kUnbounded).second) instance.todo.push_back(rule);
            instance.jumps.emplace_back(push({Op::jump}), rule);
            return;
        }
        if (layout_.called(rule)) {
            if (entry_[rule] == kUnbounded) {
                entry_[rule] = kUnbounded - 1;
                pending_.push_back(rule);
            }
            push({Op::call, LoopKind::none, rule});
            return;
        }
        if (!facts_.recursive[facts_.group[rule]]) {
            emit(ir_.rules[rule].node, kUnbounded);
            return;
        }
        Instance instance{facts_.group[rule], {{rule, kUnbounded}}, {}, {rule}};
        Instance* const outer = std::exchange(instance_, &instance);
        std::vector<std::uint32_t> ends;
        while (!instance.todo.empty()) {
            const std::uint32_t next = instance.todo.back();
            instance.todo.pop_back();
            instance.labels[next] = here();
            emit(ir_.rules[next].node, instance.group);
            ends.push_back(push({Op::jump}));
        }
        for (const auto& [jump, target] : instance.jumps) program_.code[jump].a = instance.labels[target];
        for (const std::uint32_t jump : ends) program_.code[jump].a = here();
        instance_ = outer;
    }

    void emit(std::uint32_t number, std::uint32_t group) {
        const Node node = ir_.nodes[number];
        switch (node.kind) {
            case NodeKind::empty:
                return;
            case NodeKind::chars:
                push({Op::chars, LoopKind::none, set_of(ir_.sets[node.index])});
                return;
            case NodeKind::literal:
                for (std::uint32_t i = 0; i < node.count; ++i) {
                    push({Op::chars, LoopKind::none, set_of(static_cast<std::uint32_t>(ir_.text[node.index + i]))});
                }
                return;
            case NodeKind::rule:
                reference(node.index, group);
                return;
            case NodeKind::sequence:
                for (std::uint32_t i = 0; i < node.count; ++i) emit(ir_.children[node.index + i], group);
                return;
            case NodeKind::choice: {
                std::vector<std::uint32_t> ends;
                for (std::uint32_t i = 0; i < node.count; ++i) {
                    const bool last = i + 1 == node.count;
                    const std::uint32_t split = last ? 0 : push({Op::split, LoopKind::none, here() + 1});
                    emit(ir_.children[node.index + i], group);
                    if (last) break;
                    ends.push_back(push({Op::jump}));
                    program_.code[split].b = here();
                }
                for (const std::uint32_t jump : ends) program_.code[jump].a = here();
                return;
            }
            case NodeKind::repeat:
                repeat(node, group);
                return;
        }
    }

    void repeat(const Node& node, std::uint32_t group) {
        if (layout_.size(node.index, group) == 0) return;
        const bool may_be_empty = is_nullable(ir_, facts_.nullable, node.index);
        const std::uint32_t min = may_be_empty ? 0 : node.min;
        if (layout_.writes_out(node, group)) {
            for (std::uint32_t i = 0; i < min; ++i) emit(node.index, group);
            std::vector<std::uint32_t> splits;
            for (std::uint32_t i = min; i < node.max; ++i) {
                splits.push_back(push({Op::split, LoopKind::none, here() + 1}));
                emit(node.index, group);
            }
            for (const std::uint32_t split : splits) program_.code[split].b = here();
            return;
        }
        if (node.max == kUnbounded && min <= 1) {
            const std::uint32_t split = min == 0 ? push({Op::split, LoopKind::none, here() + 1}) : 0;
            const std::uint32_t body = here();
            emit(node.index, group);
            mark_loop(body, LoopKind::unbounded);
            if (min == 0) {
                push({Op::jump, LoopKind::none, split});
                program_.code[split].b = here();
            } else {
                const std::uint32_t back = push({Op::split, LoopKind::none, body});
                program_.code[back].b = back + 1;
            }
            return;
        }
        if (node.max == 1) {
            const std::uint32_t split = push({Op::split, LoopKind::none, here() + 1});
            emit(node.index, group);
            program_.code[split].b = here();
            return;
        }
        Counter counter{min, node.max, 0, 0, 0};
        if (may_be_empty) {
            if (empty_loops_ >= limits_.empty_loops) {
                throw Error(ErrorCode::grammar, "grammar: more than " + std::to_string(limits_.empty_loops) +
                                                    " counted repetitions of something that may be empty");
            }
            // Repetitions side by side may share a bit, which is cleared on leaving; under calls, each needs its own.
            counter.empty_bit = 1ULL << empty_loops_++;
        }
        const auto index = static_cast<std::uint32_t>(program_.counters.size());
        program_.counters.push_back(counter);
        push({Op::enter, LoopKind::none, index});
        const std::uint32_t outer = scope_;
        program_.scopes.push_back({outer, index, program_.scopes[outer].depth + 1});
        scope_ = static_cast<std::uint32_t>(program_.scopes.size() - 1);
        push({Op::test, LoopKind::none, index});
        const std::uint32_t body = here();
        emit(node.index, group);
        mark_loop(body, LoopKind::counted);
        push({Op::again, LoopKind::none, index, body - 1});
        scope_ = outer;
        program_.counters[index].body = body;
        program_.counters[index].exit = here();
        if (may_be_empty && !layout_.calls()) --empty_loops_;
    }

    void mark_loop(std::uint32_t body, LoopKind kind) {
        if (here() == body + 1 && program_.code[body].op == Op::chars) program_.code[body].loop = kind;
    }

    // Splits Unicode into classes of characters that no set of the grammar tells apart: one sweep over all range ends,
    // with a running signature of the sets that are open.
    void build_alphabet() {
        struct Edge {
            std::uint32_t at;
            std::uint64_t first;
            std::uint64_t second;
        };
        std::vector<Edge> edges;
        for (std::size_t i = 0; i < program_.sets.size(); ++i) {
            const std::uint64_t first = mix(2 * i);
            const std::uint64_t second = mix(2 * i + 1);
            for (const auto& [low, high] : program_.sets[i].points.ranges()) {
                edges.push_back({low, first, second});
                edges.push_back({high + 1, first, second});
            }
        }
        std::sort(edges.begin(), edges.end(), [](const Edge& a, const Edge& b) { return a.at < b.at; });
        std::map<std::pair<std::uint64_t, std::uint64_t>, std::uint32_t> numbers{{{0, 0}, 0}};
        std::pair<std::uint64_t, std::uint64_t> signature{0, 0};
        program_.starts = {0};
        program_.start_class = {0};
        for (std::size_t i = 0; i < edges.size();) {
            const std::uint32_t at = edges[i].at;
            for (; i < edges.size() && edges[i].at == at; ++i) {
                signature.first ^= edges[i].first;
                signature.second ^= edges[i].second;
            }
            const std::uint32_t cls =
                numbers.emplace(signature, static_cast<std::uint32_t>(numbers.size())).first->second;
            if (cls == program_.start_class.back()) continue;
            program_.starts.push_back(at);
            program_.start_class.push_back(cls);
        }
        program_.classes = static_cast<std::uint32_t>(numbers.size());
        if (program_.classes > limits_.classes) {
            throw Error(ErrorCode::grammar, "grammar: it tells " + std::to_string(program_.classes) +
                                                " kinds of characters apart, the limit is " +
                                                std::to_string(limits_.classes));
        }
        for (std::uint32_t c = 0; c < 128; ++c) program_.ascii[c] = wide_class(c);
        std::uint64_t words = 0;
        for (ClassSet& set : program_.sets) {
            const auto& ranges = set.points.ranges();
            if (ranges.size() == 1 && ranges[0].first == ranges[0].second) set.one_point = ranges[0].first;
            std::vector<std::uint32_t> members;
            for (const auto& [low, high] : ranges) {
                auto it = std::upper_bound(program_.starts.begin(), program_.starts.end(), low) - 1;
                for (; it != program_.starts.end() && *it <= high; ++it) {
                    members.push_back(program_.start_class[static_cast<std::size_t>(it - program_.starts.begin())]);
                }
            }
            std::sort(members.begin(), members.end());
            members.erase(std::unique(members.begin(), members.end()), members.end());
            set.single = members.size() == 1;
            set.only = members.empty() ? 0 : members.front();
            if (set.single) continue;
            words += (program_.classes + 63) / 64;
            if (words > (16U << 20U) / 8) throw Error(ErrorCode::grammar, "grammar: too many large character classes");
            set.bits.assign((program_.classes + 63) / 64, 0);
            for (const std::uint32_t cls : members) set.bits[cls >> 6U] |= 1ULL << (cls & 63U);
        }
    }

    [[nodiscard]] std::uint32_t wide_class(std::uint32_t cp) const {
        const auto it = std::upper_bound(program_.starts.begin(), program_.starts.end(), cp) - 1;
        return program_.start_class[static_cast<std::size_t>(it - program_.starts.begin())];
    }

    const GrammarIr& ir_;
    const RuleFacts& facts_;
    const Limits& limits_;
    Layout layout_;
    Program program_;
    std::vector<std::uint32_t> entry_;
    std::vector<std::uint32_t> pending_;
    std::map<std::vector<CodePointSet::Range>, std::uint32_t> set_numbers_;
    std::unordered_map<std::uint32_t, std::uint32_t> single_numbers_;
    Instance* instance_ = nullptr;
    std::uint32_t scope_ = 0;
    std::size_t empty_loops_ = 0;
};

}  // namespace

std::uint32_t Program::class_of_wide(std::uint32_t cp) const noexcept {
    const auto it = std::upper_bound(starts.begin(), starts.end(), cp) - 1;
    return start_class[static_cast<std::size_t>(it - starts.begin())];
}

std::vector<std::uint32_t> Program::live_counters(std::uint32_t pc) const {
    std::vector<std::uint32_t> live(depth(pc));
    std::uint32_t scope = code[pc].scope;
    for (std::size_t i = live.size(); i > 0; --i) {
        live[i - 1] = scopes[scope].counter;
        scope = scopes[scope].parent;
    }
    return live;
}

Program compile(const GrammarIr& ir, const Limits& limits) {
    const RuleFacts facts = analyse(ir);
    return Compiler(ir, facts, limits).compile();
}

}  // namespace ltm::grammar
