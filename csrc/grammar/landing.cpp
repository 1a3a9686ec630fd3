#include "grammar/landing.h"

#include <algorithm>

namespace ltm::grammar {
namespace {

constexpr std::size_t kMostNodes = 400'000;

std::uint64_t hash_of(const LoneThread& thread) noexcept {
    std::uint64_t hash = (thread.pc * 0x9E3779B97F4A7C15ULL) ^ (thread.stack * 0xC2B2AE3D27D4EB4FULL);
    for (const std::uint32_t count : thread.counts) hash = (hash ^ count) * 0x100000001B3ULL + (hash >> 31U);
    return hash;
}

}  // namespace

std::uint32_t Landing::node(LoneThread&& thread) {
    const std::uint64_t hash = hash_of(thread);
    const auto [from, to] = index_.equal_range(hash);
    for (auto it = from; it != to; ++it) {
        const LoneThread& other = nodes_[it->second].thread;
        if (other.pc == thread.pc && other.stack == thread.stack && other.counts == thread.counts) return it->second;
    }
    const auto number = static_cast<std::uint32_t>(nodes_.size());
    const Program& program = automaton_.program();
    const Instruction& instruction = program.code[thread.pc];
    Node made;
    if (instruction.op == Op::match) {
        made.known = true;
        made.cost = {0, 0, 0, 0};
    } else {
        made.point = Distances::representative(program.sets[instruction.a].points);
    }
    made.thread = std::move(thread);
    nodes_.push_back(std::move(made));
    index_.emplace(hash, number);
    return number;
}

std::uint32_t Landing::next(std::uint32_t number) {
    if (nodes_[number].next == 0) {
        LoneThread thread = nodes_[number].thread;
        ++thread.pc;
        settle(distances_, automaton_, thread);
        nodes_[number].next = node(std::move(thread));
    }
    return nodes_[number].next;
}

std::uint32_t Landing::segment(std::string_view bytes, std::uint32_t follow) {
    std::array<std::uint32_t, 4> best{kNever, kNever, kNever, kNever};
    for (std::size_t from = bytes.size(); from-- > 0;) {
        std::uint32_t at = 0;
        std::size_t i = from;
        bool going = true;
        for (; going && i < bytes.size(); ++i) {
            at = vocab_.child(at, static_cast<std::uint8_t>(bytes[i]));
            going = at != 0;
            if (going && i + 1 < bytes.size() && vocab_.has_token(at))
                best[from] = std::min(best[from], best[i + 1] + 1);
        }
        // Past the given bytes, along the completion.
        for (std::uint32_t place = follow; going;) {
            if (vocab_.has_token(at)) best[from] = std::min(best[from], nodes_[place].cost[0] + 1);
            if (nodes_[place].point == 0) break;
            std::string character;
            append_utf8(character, nodes_[place].point);
            for (std::size_t k = 0; going && k < character.size(); ++k) {
                at = vocab_.child(at, static_cast<std::uint8_t>(character[k]));
                going = at != 0;
                if (going && k + 1 < character.size() && vocab_.has_token(at)) {
                    best[from] = std::min(best[from], nodes_[place].cost[k + 1] + 1);
                }
            }
            if (going) place = next(place);
        }
    }
    return std::min(best[0], kNever);
}

bool Landing::compute(std::uint32_t number) {
    std::vector<std::uint32_t> chain;
    for (std::uint32_t at = number; !nodes_[at].known; at = next(at)) {
        chain.push_back(at);
        if (nodes_.size() > kMostNodes || chain.size() > automaton_.limits().completion_bytes) return false;
    }
    for (std::size_t i = chain.size(); i-- > 0;) {
        automaton_.spend(64);
        std::string character;
        append_utf8(character, nodes_[chain[i]].point);
        const std::uint32_t follow = next(chain[i]);
        std::array<std::uint32_t, 4> cost{kNever, kNever, kNever, kNever};
        for (std::size_t k = character.size(); k-- > 0;) {
            cost[k] = segment(std::string_view(character).substr(k), follow);
        }
        nodes_[chain[i]].cost = cost;
        nodes_[chain[i]].known = true;
    }
    return true;
}

std::uint32_t Landing::cost(const State& state, const Shape& shape, std::uint32_t i) {
    const Program& program = automaton_.program();
    const ThreadView view = automaton_.thread(shape, i);
    if (program.code[view.pc].op == Op::match) return state.partial.none() ? 0 : kNever;
    LoneThread thread{view.pc, view.stack, {}};
    const std::uint32_t depth = program.depth(view.pc);
    thread.counts.reserve(depth);
    for (std::uint32_t k = 0; k < depth; ++k) thread.counts.push_back(view.counts[k].get(state));
    const std::uint32_t set = program.code[view.pc].a;
    settle(distances_, automaton_, thread);  // cuts the counts
    const std::uint32_t here = node(std::move(thread));
    if (!nodes_[here].known && !compute(here)) return kNever;
    if (state.partial.none()) return nodes_[here].cost[0];
    std::uint32_t best = kNever;
    const std::uint32_t low = state.partial.low();
    const std::uint32_t high = state.partial.high();
    const auto written = static_cast<std::size_t>(state.partial.length() - state.partial.missing());
    const std::uint32_t point = nodes_[here].point;
    if (point >= low && point <= high && utf8_length(point) == state.partial.length())
        best = nodes_[here].cost[written];
    const std::uint32_t other = program.sets[set].points.first_in(low, high);
    if (other != 0) {
        const std::uint32_t follow = next(here);
        if (!nodes_[follow].known && !compute(follow)) return best;
        std::string character;
        append_utf8(character, other);
        best = std::min(best, segment(std::string_view(character).substr(written), follow));
    }
    return best;
}

std::uint32_t Landing::cost_after(const State& state, const Shape& shape, std::uint32_t i) {
    const ThreadView view = automaton_.thread(shape, i);
    LoneThread thread{view.pc, view.stack, {}};
    for (std::uint32_t k = 0; k < automaton_.program().depth(view.pc); ++k)
        thread.counts.push_back(view.counts[k].get(state));
    settle(distances_, automaton_, thread);
    const std::uint32_t follow = next(node(std::move(thread)));
    return nodes_[follow].known || compute(follow) ? nodes_[follow].cost[0] : kNever;
}

std::uint32_t Landing::cost(const State& state) {
    const Fixed& known = fixed(state);
    bool holds = true;
    for (std::size_t k = 0; k < kMaxValues; ++k) holds = holds && state.values[k] >= known.floor[k];
    if (holds && state.partial.none()) return known.cost;
    const std::uint64_t key = (static_cast<std::uint64_t>(state.shape) << 32U) | state.partial.bits();
    if (holds) {
        if (const auto it = partial_.find(key); it != partial_.end()) return it->second;
    }
    const Shape shape = automaton_.shape(state);
    std::uint32_t best = kNever;
    for (std::uint32_t i = 0; i < shape.threads; ++i) best = std::min(best, cost(state, shape, i));
    if (holds && partial_.size() < kMostNodes) partial_.emplace(key, best);
    return best;
}

const Landing::Fixed& Landing::fixed(const State& state) {
    if (fixed_.size() <= state.shape) fixed_.resize(std::max<std::size_t>(state.shape + 1, automaton_.shape_count()));
    if (!fixed_[state.shape].known) {
        const Program& program = automaton_.program();
        const Shape shape = automaton_.shape(state);
        Fixed made;
        made.known = true;
        made.cost = kNever;
        State settled = state;
        settled.partial = {};
        for (std::uint32_t i = 0; i < shape.threads; ++i) {
            const ThreadView view = automaton_.thread(shape, i);
            const std::vector<std::uint32_t> live = program.live_counters(view.pc);
            for (std::size_t k = 0; k < live.size(); ++k) {
                const std::uint32_t min = program.counters[live[k]].min;
                if (!view.counts[k].is_value() || min < 2) continue;
                std::uint32_t& floor = made.floor[view.counts[k].index()];
                floor = std::max(floor, min - 1);
            }
        }
        for (std::size_t k = 0; k < kMaxValues; ++k) settled.values[k] = std::max(settled.values[k], made.floor[k]);
        for (std::uint32_t i = 0; i < shape.threads; ++i) made.cost = std::min(made.cost, cost(settled, shape, i));
        if (fixed_.size() <= state.shape) fixed_.resize(state.shape + 1);
        fixed_[state.shape] = made;
    }
    return fixed_[state.shape];
}

}  // namespace ltm::grammar
