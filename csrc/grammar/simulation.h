// One step of the program by simulation: what the automaton does when it meets a transition for the first time.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <limits>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "grammar/automaton.h"
#include "support/error.h"

namespace ltm::grammar {

// One step of the program from one state on one class, keeping count of what the outcome depended on.
class Simulation {
  public:
    static constexpr std::uint32_t kNoBound = std::numeric_limits<std::uint32_t>::max();

    // A count as the simulation sees it: where it comes from, and what it is for the state at hand.
    struct Count {
        std::int32_t source;  // value of the state before, or -1: a constant
        std::uint32_t add;    // added to it, or the constant
        std::uint32_t now;    // its number
        [[nodiscard]] bool same(const Count& other) const noexcept {
            return source == other.source && add == other.add;
        }
    };

    struct Thread {
        std::uint32_t pc = 0;
        std::uint32_t stack = 0;
        std::uint64_t empty = 0;  // counted repetitions entered without having taken a character since
        std::vector<Count> counts;
    };

    Simulation(Automaton& automaton, const State& state)
        : automaton_(automaton), program_(automaton.program_), state_(state) {
        low_.fill(0);
        high_.fill(kNoBound);
    }

    void advance(std::uint32_t cls) {
        const Shape& shape = automaton_.shapes_[state_.shape];
        for (std::uint32_t i = 0; i < shape.threads; ++i) {
            const ThreadView view = automaton_.thread(shape, i);
            const Instruction& instruction = program_.code[view.pc];
            if (instruction.op != Op::chars || !program_.sets[instruction.a].has(cls)) continue;
            Thread thread{view.pc + 1, view.stack, 0, {}};
            const std::uint32_t depth = program_.depth(view.pc);
            for (std::uint32_t k = 0; k < depth; ++k) {
                const Operand operand = view.counts[k];
                if (operand.is_value()) {
                    thread.counts.push_back({static_cast<std::int32_t>(operand.index()), 0, operand.get(state_)});
                } else {
                    thread.counts.push_back({-1, operand.bits(), operand.bits()});
                }
            }
            todo_.push_back(std::move(thread));
            close();
        }
        prune();
    }

    void begin() {
        todo_.push_back({program_.start, 0, 0, {}});
        close();
        prune();
    }

    // The shape reached (interned) and how its values come about.
    Transition result() {
        Transition transition;
        automaton_.spend(16 * threads_.size());
        std::sort(threads_.begin(), threads_.end(), [](const Thread& a, const Thread& b) {
            if (a.pc != b.pc) return a.pc < b.pc;
            if (a.stack != b.stack) return a.stack < b.stack;
            for (std::size_t k = 0; k < a.counts.size(); ++k) {
                const Count& x = a.counts[k];
                const Count& y = b.counts[k];
                if (!x.same(y)) return std::pair(x.source, x.add) < std::pair(y.source, y.add);
            }
            return false;
        });
        std::vector<std::pair<std::uint32_t, Count>> values;  // counter, where it comes from
        bool concrete = !write_key(values);
        if (concrete) {
            // Too many values for a state: fix them all in the shape.
            values.clear();
            for (std::size_t i = 0; i < kMaxValues; ++i) low_[i] = high_[i] = state_.values[i];
            for (Thread& thread : threads_) {
                for (Count& count : thread.counts) count = {-1, count.now, count.now};
            }
            write_concrete_key();
        }
        transition.next = automaton_.intern(key_, static_cast<std::uint8_t>(values.size()));
        transition.values = static_cast<std::uint8_t>(values.size());
        for (std::size_t i = 0; i < values.size(); ++i) {
            transition.source[i] = static_cast<std::int8_t>(values[i].second.source);
            transition.add[i] = values[i].second.add;
        }
        for (std::size_t i = 0; i < kMaxValues; ++i) {
            transition.low[i] = low_[i];
            transition.width[i] = high_[i] - low_[i];
            if (low_[i] != 0 || high_[i] != kNoBound) transition.checked = static_cast<std::uint8_t>(i + 1);
        }
        return transition;
    }

  private:
    bool write_key(std::vector<std::pair<std::uint32_t, Count>>& values) {
        key_.clear();
        for (const Thread& thread : threads_) {
            key_.push_back(thread.pc);
            key_.push_back(thread.stack);
            const std::vector<std::uint32_t> live = program_.live_counters(thread.pc);
            for (std::size_t k = 0; k < thread.counts.size(); ++k) {
                const Count& count = thread.counts[k];
                std::size_t index = 0;
                while (index < values.size() && !(values[index].first == live[k] && values[index].second.same(count)))
                    ++index;
                if (index == values.size()) {
                    if (index == kMaxValues) return false;
                    values.emplace_back(live[k], count);
                }
                key_.push_back(Operand::value(static_cast<std::uint32_t>(index)).bits());
            }
        }
        return true;
    }

    void write_concrete_key() {
        key_.clear();
        for (const Thread& thread : threads_) {
            key_.push_back(thread.pc);
            key_.push_back(thread.stack);
            for (const Count& count : thread.counts) key_.push_back(Operand::constant(count.now).bits());
        }
    }

    // Notes that the outcome depended on `count >= bound`, which is answered.
    bool at_least(const Count& count, std::uint32_t bound) {
        const bool yes = count.now >= bound;
        if (count.source < 0) return yes;
        const auto i = static_cast<std::size_t>(count.source);
        if (yes) {
            if (bound > count.add) low_[i] = std::max(low_[i], bound - count.add);
        } else {
            high_[i] = std::min(high_[i], bound - count.add - 1);
        }
        return yes;
    }

    void pin(const Count& count) {
        if (count.source < 0) return;
        const auto i = static_cast<std::size_t>(count.source);
        low_[i] = high_[i] = state_.values[i];
    }

    // Follows everything that takes no character, from every thread in todo_.
    void close() {
        while (!todo_.empty()) {
            Thread thread = std::move(todo_.back());
            todo_.pop_back();
            for (bool going = true; going;) {
                const Instruction& instruction = program_.code[thread.pc];
                // Only where ways part or come together can one be met twice.
                const bool straight = instruction.op == Op::jump || instruction.op == Op::enter ||
                                      instruction.op == Op::again || instruction.op == Op::ret;
                automaton_.spend((straight ? 2 : 16) + 2 * thread.counts.size());
                if (!straight && !visit(thread)) break;
                switch (instruction.op) {
                    case Op::chars:
                    case Op::match:
                        keep(std::move(thread));
                        going = false;
                        break;
                    case Op::split: {
                        Thread other = thread;
                        other.pc = instruction.b;
                        todo_.push_back(std::move(other));
                        thread.pc = instruction.a;
                        break;
                    }
                    case Op::jump:
                        thread.pc = instruction.a;
                        break;
                    case Op::enter:
                        thread.counts.push_back({-1, 0, 0});
                        ++thread.pc;
                        break;
                    case Op::test:
                        going = test(thread, program_.counters[instruction.a]);
                        break;
                    case Op::again:
                        going = again(thread, program_.counters[instruction.a], instruction.b);
                        break;
                    case Op::call:
                        going = call(thread, instruction);
                        break;
                    case Op::ret: {
                        const Frame& frame = automaton_.frames_[thread.stack];
                        thread.pc = frame.pc;
                        thread.counts.clear();
                        for (const std::uint32_t count : frame.counts) thread.counts.push_back({-1, count, count});
                        thread.stack = frame.parent;
                        break;
                    }
                }
            }
        }
    }

    bool test(Thread& thread, const Counter& counter) {
        const Count count = thread.counts.back();
        const bool more = counter.max == kUnbounded || !at_least(count, counter.max);
        const bool leave = counter.min == 0 || at_least(count, counter.min);
        if (more && leave) {
            Thread other = thread;
            other.counts.pop_back();
            other.empty &= ~counter.empty_bit;
            other.pc = counter.exit;
            todo_.push_back(std::move(other));
        }
        if (more) {
            thread.empty |= counter.empty_bit;
            thread.pc = counter.body;
            return true;
        }
        if (!leave) return false;
        thread.counts.pop_back();
        thread.empty &= ~counter.empty_bit;
        thread.pc = counter.exit;
        return true;
    }

    bool again(Thread& thread, const Counter& counter, std::uint32_t test_pc) {
        if ((thread.empty & counter.empty_bit) != 0) return false;
        Count& count = thread.counts.back();
        if (counter.max == kUnbounded && at_least(count, counter.min - 1)) {
            count = {-1, counter.min, counter.min};  // past the lower bound nothing is counted any more
        } else {
            ++count.add;
            ++count.now;
        }
        thread.pc = test_pc;
        return true;
    }

    bool call(Thread& thread, const Instruction& instruction) {
        if (instruction.b == 0) {
            if (automaton_.frames_[thread.stack].depth >= automaton_.limits_.stack_depth) return false;
            std::vector<std::uint32_t> counts;
            for (const Count& count : thread.counts) {
                pin(count);
                counts.push_back(count.now);
            }
            thread.stack = automaton_.push_frame(thread.stack, thread.pc + 1, std::move(counts));
            thread.counts.clear();
        }
        thread.pc = instruction.a;
        return true;
    }

    static bool same(const Thread& a, const Thread& b) noexcept {
        return a.pc == b.pc && a.stack == b.stack && a.empty == b.empty &&
               std::equal(a.counts.begin(), a.counts.end(), b.counts.begin(), b.counts.end(),
                          [](const Count& x, const Count& y) { return x.same(y); });
    }

    static std::uint64_t hash_of(const Thread& thread) noexcept {
        std::uint64_t hash =
            (thread.pc * 0x9E3779B97F4A7C15ULL) ^ (thread.stack * 0xC2B2AE3D27D4EB4FULL) ^ thread.empty;
        for (const Count& count : thread.counts) {
            hash = (hash ^ static_cast<std::uint32_t>(count.source)) * 0x100000001B3ULL;
            hash = (hash ^ count.add) * 0x9E3779B97F4A7C15ULL;
            hash ^= hash >> 31U;
        }
        return hash;
    }

    // False if this very thread has been here before. Mostly a handful is seen, so a hash index comes in only later.
    bool visit(const Thread& thread) {
        constexpr std::size_t kFew = 24;
        if (seen_.size() < kFew) {
            for (const Thread& other : seen_) {
                if (same(other, thread)) return false;
            }
        } else {
            if (seen_index_.empty()) {
                for (std::uint32_t i = 0; i < seen_.size(); ++i) seen_index_.emplace(hash_of(seen_[i]), i);
            }
            const std::uint64_t hash = hash_of(thread);
            const auto [from, to] = seen_index_.equal_range(hash);
            for (auto it = from; it != to; ++it) {
                if (same(seen_[it->second], thread)) return false;
            }
            seen_index_.emplace(hash, static_cast<std::uint32_t>(seen_.size()));
        }
        seen_.push_back(thread);
        return true;
    }

    void keep(Thread&& thread) {
        if (threads_.size() == automaton_.limits_.threads) {
            throw Error(ErrorCode::grammar, "grammar: too ambiguous: one prefix can be read in more than " +
                                                std::to_string(automaton_.limits_.threads) +
                                                " ways; simplify overlapping repetitions");
        }
        threads_.push_back(std::move(thread));
    }

    // Drops threads that another one stands for: at the same place with no more rounds used and no fewer still owed,
    // everything that can follow the one can follow the other.
    void prune() {
        std::stable_sort(threads_.begin(), threads_.end(), [](const Thread& a, const Thread& b) {
            return std::pair(a.pc, a.stack) < std::pair(b.pc, b.stack);
        });
        std::size_t kept = 0;
        for (std::size_t from = 0, to = 0; from < threads_.size(); from = to) {
            to = from + 1;
            while (to < threads_.size() && threads_[to].pc == threads_[from].pc &&
                   threads_[to].stack == threads_[from].stack)
                ++to;
            std::vector<bool> gone(to - from, false);
            if (to - from > 1 && !threads_[from].counts.empty()) {
                const std::vector<std::uint32_t> live = program_.live_counters(threads_[from].pc);
                // In a large group only threads that owe no rounds are tried as stand-ins: few of them remain.
                constexpr std::size_t kSmall = 32;
                std::vector<std::size_t> standing;
                for (std::size_t j = from; j < to; ++j) {
                    if (to - from <= kSmall || owes_nothing(threads_[j], live)) standing.push_back(j);
                }
                std::sort(standing.begin(), standing.end(),
                          [this](std::size_t a, std::size_t b) { return total(threads_[a]) < total(threads_[b]); });
                std::vector<std::size_t> better;
                for (const std::size_t i : standing) {
                    for (std::size_t j = 0; j < better.size() && !gone[i - from]; ++j) {
                        automaton_.spend(1);
                        gone[i - from] = stands_for(threads_[better[j]], threads_[i], live);
                    }
                    if (!gone[i - from]) better.push_back(i);
                }
                if (to - from > kSmall) {
                    for (std::size_t i = from; i < to; ++i) {
                        for (std::size_t j = 0; j < better.size() && !gone[i - from]; ++j) {
                            automaton_.spend(1);
                            gone[i - from] = better[j] != i && stands_for(threads_[better[j]], threads_[i], live);
                        }
                    }
                }
            }
            for (std::size_t i = from; i < to; ++i) {
                if (gone[i - from]) continue;
                if (kept != i) threads_[kept] = std::move(threads_[i]);
                ++kept;
            }
        }
        threads_.resize(kept);
    }

    bool owes_nothing(const Thread& thread, const std::vector<std::uint32_t>& live) const noexcept {
        for (std::size_t k = 0; k < live.size(); ++k) {
            if (thread.counts[k].now + 1 < program_.counters[live[k]].min) return false;
        }
        return true;
    }

    static std::uint64_t total(const Thread& thread) noexcept {
        std::uint64_t sum = 0;
        for (const Count& count : thread.counts) sum += count.now;
        return sum;
    }

    bool stands_for(const Thread& better, const Thread& worse, const std::vector<std::uint32_t>& live) {
        for (std::size_t k = 0; k < live.size(); ++k) {
            const Counter& counter = program_.counters[live[k]];
            const Count& a = better.counts[k];
            const Count& b = worse.counts[k];
            if (a.now > b.now) return false;
            if (a.now < b.now && a.now + 1 < counter.min) return false;
        }
        // It does; note what that depended on.
        for (std::size_t k = 0; k < live.size(); ++k) {
            const Counter& counter = program_.counters[live[k]];
            const Count& a = better.counts[k];
            const Count& b = worse.counts[k];
            if (a.same(b)) continue;
            if (a.source == b.source) {
                // a.add < b.add always; equal counts would be the same.
            } else if (a.source < 0) {
                at_least(b, a.now);
            } else {
                pin(a);
                pin(b);
            }
            if (counter.min > 1) at_least(a, a.now + 1 >= counter.min ? counter.min - 1 : a.now);
            if (counter.min > 1 && a.now + 1 < counter.min) {
                pin(a);
                pin(b);
            }
        }
        return true;
    }

    Automaton& automaton_;
    const Program& program_;
    const State& state_;
    std::array<std::uint32_t, kMaxValues> low_{};
    std::array<std::uint32_t, kMaxValues> high_{};
    std::vector<Thread> todo_;
    std::vector<Thread> threads_;
    std::vector<Thread> seen_;
    std::unordered_multimap<std::uint64_t, std::uint32_t> seen_index_;
    std::vector<std::uint32_t> key_;
};

}  // namespace ltm::grammar
