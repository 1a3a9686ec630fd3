#include "grammar/automaton.h"

#include <algorithm>

#include "grammar/simulation.h"
#include "support/error.h"

namespace ltm::grammar {
namespace {

constexpr std::uint32_t kUnknown = 0;  // transition not computed yet
constexpr std::uint32_t kDead = 1;     // transitions_[1]: leads nowhere
constexpr std::uint32_t kDenseClasses = 256;

std::uint64_t hash_words(const std::vector<std::uint32_t>& words) noexcept {
    std::uint64_t hash = 0x9E3779B97F4A7C15ULL ^ words.size();
    for (const std::uint32_t word : words) hash = (hash ^ word) * 0x100000001B3ULL + (hash >> 29U);
    return hash;
}

}  // namespace

Automaton::Automaton(const Program& program, const Limits& limits) : program_(program), limits_(limits) {
    dense_ = program.classes <= kDenseClasses;
    frames_.push_back({0, 0, 0, {}});
    transitions_.resize(2);  // kUnknown, kDead
    intern({}, 0);           // shape 0: dead
    begin_call();
    Simulation simulation(*this, start_);
    simulation.begin();
    const Transition transition = simulation.result();
    State state;
    follow(transition, state);
    start_ = state;
}

void Automaton::spend(std::uint64_t steps) {
    work_ += steps;
    if (work_ > limits_.work) {
        throw Error(ErrorCode::grammar, "grammar: one step took more than " + std::to_string(limits_.work) +
                                            " elementary steps; simplify nested or overlapping repetitions");
    }
}

std::uint32_t Automaton::push_frame(std::uint32_t parent, std::uint32_t pc, std::vector<std::uint32_t> counts) {
    std::uint64_t hash = hash_words(counts) ^ (parent * 0x9E3779B97F4A7C15ULL) ^ (pc * 0xC2B2AE3D27D4EB4FULL);
    const auto [from, to] = frame_index_.equal_range(hash);
    for (auto it = from; it != to; ++it) {
        const Frame& frame = frames_[it->second];
        if (frame.parent == parent && frame.pc == pc && frame.counts == counts) return it->second;
    }
    if (frames_.size() >= limits_.frames) {
        throw Error(ErrorCode::grammar,
                    "grammar: more than " + std::to_string(limits_.frames) + " distinct nestings were met");
    }
    const auto index = static_cast<std::uint32_t>(frames_.size());
    frames_.push_back({parent, frames_[parent].depth + 1, pc, std::move(counts)});
    frame_index_.emplace(hash, index);
    return index;
}

std::uint32_t Automaton::intern(const std::vector<std::uint32_t>& key, std::uint8_t values) {
    const std::uint64_t hash = hash_words(key);
    const auto [from, to] = shape_index_.equal_range(hash);
    for (auto it = from; it != to; ++it) {
        if (shape_keys_[it->second] == key) return it->second;
    }
    bytes_ += (program_.classes + 63) / 64 * 8 + (dense_ ? program_.classes * 4 : 0) + key.size() * 8 + 160;
    if (shapes_.size() >= limits_.states || bytes_ > limits_.state_bytes) {
        throw Error(ErrorCode::grammar, "grammar: more than " + std::to_string(limits_.states) + " states were met");
    }
    const auto index = static_cast<std::uint32_t>(shapes_.size());
    Shape shape;
    shape.values = values;
    shape.first_thread = static_cast<std::uint32_t>(threads_.size());
    shape.first_loop = static_cast<std::uint32_t>(loops_.size());
    shape.first_live = static_cast<std::uint32_t>(live_.size());
    const std::size_t words = (program_.classes + 63) / 64;
    live_.resize(live_.size() + words, 0);
    std::uint64_t* const live = live_.data() + shape.first_live;
    for (std::size_t i = 0; i < key.size();) {
        const std::uint32_t pc = key[i];
        const std::uint32_t depth = program_.depth(pc);
        threads_.push_back({pc, key[i + 1], static_cast<std::uint32_t>(operands_.size())});
        i += 2;
        Operand innermost = Operand::constant(0);
        for (std::uint32_t k = 0; k < depth; ++k, ++i) {
            const bool is_value = (key[i] >> 31U) != 0;
            innermost = is_value ? Operand::value(key[i] & 0x7FFFFFFFU) : Operand::constant(key[i]);
            operands_.push_back(innermost);
        }
        ++shape.threads;
        const Instruction& instruction = program_.code[pc];
        if (instruction.op == Op::match) {
            shape.complete = true;
            continue;
        }
        const ClassSet& set = program_.sets[instruction.a];
        if (set.single) {
            live[set.only >> 6U] |= 1ULL << (set.only & 63U);
        } else {
            for (std::size_t w = 0; w < words; ++w) live[w] |= set.bits[w];
        }
        const auto& ranges = set.points.ranges();
        const std::uint32_t least = ranges.front().first;
        const std::uint32_t greatest = ranges.back().second;
        shape.least = shape.least == 0 ? least : std::min(shape.least, least);
        shape.greatest = std::max(shape.greatest, greatest);
        if (instruction.loop == LoopKind::unbounded) {
            loops_.push_back({instruction.a, shape.threads - 1, Operand::constant(0), kUnbounded});
        } else if (instruction.loop == LoopKind::counted) {
            const Counter& counter = program_.counters[program_.scopes[instruction.scope].counter];
            if (counter.max == kUnbounded) {
                loops_.push_back({instruction.a, shape.threads - 1, Operand::constant(0), kUnbounded});
            } else {
                loops_.push_back({instruction.a, shape.threads - 1, innermost, counter.max});
            }
        }
    }
    shape.wide = shape.greatest >= 0x80;
    shape.loops = static_cast<std::uint32_t>(loops_.size()) - shape.first_loop;
    if (dense_) {
        shape.row = static_cast<std::uint32_t>(rows_.size());
        rows_.resize(rows_.size() + program_.classes, kDead);
        for (std::uint32_t cls = 0; cls < program_.classes; ++cls) {
            if (((live[cls >> 6U] >> (cls & 63U)) & 1U) != 0) rows_[shape.row + cls] = kUnknown;
        }
    }
    shapes_.push_back(shape);
    shape_keys_.push_back(key);
    shape_index_.emplace(hash, index);
    return index;
}

std::uint32_t* Automaton::slot(const State& state, std::uint32_t cls) {
    if (dense_) return &rows_[shapes_[state.shape].row + cls];
    if (!live(shapes_[state.shape], cls)) return nullptr;
    return &sparse_rows_[(static_cast<std::uint64_t>(state.shape) << 32U) | cls];
}

const Transition* Automaton::any_transition(const State& state, std::uint32_t cls) {
    const std::uint32_t* const entry = slot(state, cls);
    if (entry == nullptr || *entry == kDead) return nullptr;
    for (std::uint32_t i = *entry; i != kUnknown; i = transitions_[i].alternative) {
        const Transition& candidate = transitions_[i];
        bool holds = true;
        for (std::size_t k = 0; k < candidate.checked; ++k) {
            holds = holds && state.values[k] - candidate.low[k] <= candidate.width[k];
        }
        if (holds) return &candidate;
    }
    return simulate(state, cls, *entry);
}

const Transition* Automaton::simulate(const State& state, std::uint32_t cls, std::uint32_t first) {
    const State copy = state;
    Simulation simulation(*this, copy);
    simulation.advance(cls);
    Transition made = simulation.result();
    if (transitions_.size() >= limits_.transitions) {
        throw Error(ErrorCode::grammar,
                    "grammar: more than " + std::to_string(limits_.transitions) + " transitions were met");
    }
    const auto index = static_cast<std::uint32_t>(transitions_.size());
    // The newest alternative comes first: what is met now will most likely be met again.
    made.alternative = first;
    transitions_.push_back(made);
    *slot(copy, cls) = index;
    return &transitions_.back();
}

void Automaton::follow(const Transition& transition, State& state) noexcept {
    const std::array<std::uint32_t, kMaxValues> old = state.values;
    for (std::size_t i = 0; i < transition.values; ++i) {
        state.values[i] = transition.source[i] < 0
                              ? transition.add[i]
                              : old[static_cast<std::size_t>(transition.source[i])] + transition.add[i];
    }
    for (std::size_t i = transition.values; i < kMaxValues; ++i) state.values[i] = 0;
    state.shape = transition.next;
}

bool Automaton::step_class(State& state, std::uint32_t cls) {
    const Transition* const taken = any_transition(state, cls);
    if (taken == nullptr || taken->next == 0) return false;
    follow(*taken, state);
    return true;
}

bool Automaton::viable(const State& state) const {
    const Shape& here = shapes_[state.shape];
    if (!here.wide) return false;
    const std::uint32_t low = state.partial.low();
    const std::uint32_t high = state.partial.high();
    if (high < here.least || low > here.greatest) return false;
    auto it = std::upper_bound(program_.starts.begin(), program_.starts.end(), low) - 1;
    for (; it != program_.starts.end() && *it <= high; ++it) {
        const std::uint32_t cls = program_.start_class[static_cast<std::size_t>(it - program_.starts.begin())];
        if (live(here, cls)) return true;
    }
    return false;
}

bool Automaton::step(State& state, std::uint8_t byte) {
    std::uint32_t cp = 0;
    switch (state.partial.push(byte, cp)) {
        case PartialChar::Status::bad:
            return false;
        case PartialChar::Status::partial:
            return viable(state);
        case PartialChar::Status::complete:
            return step_class(state, program_.class_of(cp));
    }
    return false;
}

std::string Automaton::forced(State& state, std::size_t most) {
    std::string bytes;
    while (bytes.size() < most) {
        const Shape& here = shapes_[state.shape];
        if (state.dead() || here.complete || here.least == 0) break;
        std::uint32_t least = here.least;
        std::uint32_t greatest = here.greatest;
        if (!state.partial.none()) {
            // Inside a character: narrow to what its first bytes allow.
            const std::uint32_t low = state.partial.low();
            const std::uint32_t high = state.partial.high();
            least = kLastCodePoint + 1;
            greatest = 0;
            for (std::uint32_t i = 0; i < here.threads; ++i) {
                const Instruction& instruction = program_.code[thread(here, i).pc];
                for (const auto& [from, to] : program_.sets[instruction.a].points.ranges()) {
                    if (to < low || from > high) continue;
                    least = std::min(least, std::max(from, low));
                    greatest = std::max(greatest, std::min(to, high));
                }
            }
        }
        std::string first;
        std::string last;
        append_utf8(first, least);
        append_utf8(last, greatest);
        if (first.size() != last.size()) break;
        std::size_t done =
            state.partial.none() ? 0 : static_cast<std::size_t>(state.partial.length() - state.partial.missing());
        const std::size_t begin = bytes.size();
        for (; done < first.size() && first[done] == last[done]; ++done) {
            State next = state;
            if (!step(next, static_cast<std::uint8_t>(first[done]))) return bytes;
            state = next;
            bytes.push_back(first[done]);
        }
        if (done < first.size() || bytes.size() == begin) break;
    }
    return bytes;
}

std::size_t Automaton::bytes() const noexcept {
    return bytes_ + transitions_.size() * sizeof(Transition) + sparse_rows_.size() * 32 + frames_.size() * 96;
}

}  // namespace ltm::grammar
