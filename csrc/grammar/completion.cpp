#include "grammar/completion.h"

#include <algorithm>
#include <queue>

#include "support/error.h"

namespace ltm::grammar {
namespace {

constexpr std::uint64_t kFar = 1ULL << 50U;

std::uint64_t capped(std::uint64_t value) { return std::min(value, kFar); }

// Cuts counts to what a completion depends on: rounds still owed.
void normalise(const Program& program, LoneThread& thread) {
    std::uint32_t scope = program.code[thread.pc].scope;
    for (std::size_t k = thread.counts.size(); k > 0; --k) {
        const Counter& counter = program.counters[program.scopes[scope].counter];
        thread.counts[k - 1] = std::min(thread.counts[k - 1], counter.min == 0 ? 0 : counter.min - 1);
        scope = program.scopes[scope].parent;
    }
}

}  // namespace

std::uint32_t Distances::representative(const CodePointSet& set) noexcept {
    for (const auto& [low, high] :
         {CodePointSet::Range{'a', 'z'}, {'A', 'Z'}, {'0', '9'}, {0x21, 0x7E}, {0x20, 0x20}}) {
        if (const std::uint32_t found = set.first_in(low, high); found != 0) return found;
    }
    return set.ranges().front().first;
}

// Knuth's generalisation of Dijkstra's algorithm: instructions are settled in order of distance; a call or a repetition
// is settled once all its parts are.
Distances::Distances(const Program& program) : distance_(program.code.size(), kFar) {
    const std::size_t n = program.code.size();
    std::vector<std::vector<std::uint32_t>> users(n);
    std::vector<std::uint64_t> weight(n, 0);
    using Item = std::pair<std::uint64_t, std::uint32_t>;
    std::priority_queue<Item, std::vector<Item>, std::greater<>> queue;
    for (std::uint32_t pc = 0; pc < n; ++pc) {
        const Instruction& instruction = program.code[pc];
        switch (instruction.op) {
            case Op::chars:
                weight[pc] =
                    static_cast<std::uint64_t>(utf8_length(representative(program.sets[instruction.a].points)));
                users[pc + 1].push_back(pc);
                break;
            case Op::split:
                users[instruction.a].push_back(pc);
                users[instruction.b].push_back(pc);
                break;
            case Op::jump:
                users[instruction.a].push_back(pc);
                break;
            case Op::enter: {
                const Counter& counter = program.counters[instruction.a];
                users[counter.exit].push_back(pc);
                if (counter.min > 0) users[counter.body].push_back(pc);
                break;
            }
            case Op::call:
                users[instruction.a].push_back(pc);
                users[pc + 1].push_back(pc);
                break;
            case Op::test:
                break;  // only met inside its repetition, whose cost `enter` carries
            case Op::again:
            case Op::ret:
            case Op::match:
                queue.emplace(0, pc);
                break;
        }
    }
    std::vector<bool> done(n, false);
    while (!queue.empty()) {
        const auto [distance, pc] = queue.top();
        queue.pop();
        if (done[pc]) continue;
        done[pc] = true;
        distance_[pc] = distance;
        for (const std::uint32_t user : users[pc]) {
            if (done[user]) continue;
            const Instruction& instruction = program.code[user];
            std::uint64_t sum = distance + weight[user];
            if (instruction.op == Op::call) {
                if (!done[instruction.a] || !done[user + 1]) continue;
                sum = distance_[instruction.a] + distance_[user + 1];
            } else if (instruction.op == Op::enter) {
                const Counter& counter = program.counters[instruction.a];
                if (!done[counter.exit] || (counter.min > 0 && !done[counter.body])) continue;
                sum = distance_[counter.exit];
                if (counter.min > 0) {
                    const std::uint64_t body = distance_[counter.body];
                    sum = body > kFar / counter.min ? kFar : capped(sum + body * counter.min);
                }
            }
            queue.emplace(capped(sum), user);
        }
    }
}

void settle(const Distances& distances, Automaton& automaton, LoneThread& thread) {
    const Program& program = automaton.program();
    for (;;) {
        const Instruction& instruction = program.code[thread.pc];
        switch (instruction.op) {
            case Op::chars:
            case Op::match:
                normalise(program, thread);
                return;
            case Op::split:
                // Ties go to the way out of a repetition, which can't go round for ever.
                thread.pc = distances.at(instruction.a) < distances.at(instruction.b) ? instruction.a : instruction.b;
                if (distances.at(instruction.a) == distances.at(instruction.b)) {
                    thread.pc = std::max(instruction.a, instruction.b);
                }
                break;
            case Op::jump:
                thread.pc = instruction.a;
                break;
            case Op::enter:
                thread.counts.push_back(0);
                ++thread.pc;
                break;
            case Op::test: {
                const Counter& counter = program.counters[instruction.a];
                if (thread.counts.back() < counter.min) {
                    thread.pc = counter.body;
                } else {
                    thread.counts.pop_back();
                    thread.pc = counter.exit;
                }
                break;
            }
            case Op::again:
                ++thread.counts.back();
                thread.pc = instruction.b;
                break;
            case Op::call:
                if (instruction.b == 0) {
                    thread.stack = automaton.push_frame(thread.stack, thread.pc + 1, std::move(thread.counts));
                }
                thread.counts.clear();
                thread.pc = instruction.a;
                break;
            case Op::ret: {
                const Frame frame = automaton.frame(thread.stack);
                thread.pc = frame.pc;
                thread.counts = frame.counts;
                thread.stack = frame.parent;
                break;
            }
        }
        automaton.spend(4);
    }
}

std::string completion(const Distances& distances, Automaton& automaton, const State& state) {
    const Program& program = automaton.program();
    const Shape shape = automaton.shape(state);
    std::string best;
    bool found = false;
    for (std::uint32_t i = 0; i < shape.threads; ++i) {
        const ThreadView view = automaton.thread(shape, i);
        LoneThread thread{view.pc, view.stack, {}};
        for (std::uint32_t k = 0; k < program.depth(view.pc); ++k) thread.counts.push_back(view.counts[k].get(state));
        std::string bytes;
        bool first = !state.partial.none();
        for (bool going = true; going;) {
            const Instruction& instruction = program.code[thread.pc];
            if (instruction.op == Op::match) break;
            std::uint32_t cp = Distances::representative(program.sets[instruction.a].points);
            if (first) {
                const CodePointSet& points = program.sets[instruction.a].points;
                cp = points.first_in(state.partial.low(), state.partial.high());
                if (cp == 0) break;
                std::string whole;
                append_utf8(whole, cp);
                bytes = whole.substr(whole.size() - static_cast<std::size_t>(state.partial.missing()));
                first = false;
            } else {
                append_utf8(bytes, cp);
            }
            if (bytes.size() > automaton.limits().completion_bytes) {
                throw Error(ErrorCode::grammar, "grammar: the shortest document is longer than " +
                                                    std::to_string(automaton.limits().completion_bytes) + " bytes");
            }
            if (found && bytes.size() >= best.size()) going = false;
            ++thread.pc;
            settle(distances, automaton, thread);
        }
        if (first || program.code[thread.pc].op != Op::match) continue;
        if (!found || bytes.size() < best.size()) {
            best = std::move(bytes);
            found = true;
        }
    }
    return best;
}

}  // namespace ltm::grammar
