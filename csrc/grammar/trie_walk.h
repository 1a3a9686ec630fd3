// One pass over the trie: which tokens a state allows, and for which other states the answer is the same.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <limits>
#include <unordered_map>
#include <utility>
#include <vector>

#include "grammar/mask_cache.h"

namespace ltm::grammar {

// One pass over the trie from one state. The places met on the way are numbered, and the steps between them kept in a
// table: a pass meets each step many thousand times.
class TrieWalk {
  public:
    static constexpr std::uint32_t kUnlimited = std::numeric_limits<std::uint32_t>::max();  // no budget

    TrieWalk(MaskCache& cache, const State& from, std::uint32_t budget)
        : cache_(cache),
          automaton_(cache.automaton_),
          program_(automaton_.program()),
          vocab_(*cache.vocab_),
          from_(from),
          budget_(budget),
          dense_(program_.classes <= kDenseClasses) {
        down_.fill(kUnlimited);
        up_.fill(kUnlimited);
    }

    Mask run() {
        const Vocab::Node* const nodes = vocab_.nodes().data();
        const std::uint64_t* const kind_sets = vocab_.kind_sets().data();
        const std::uint32_t n = vocab_.node_count();
        std::vector<Level> levels(vocab_.longest() + 1);
        Place first;
        first.state = from_;
        first.state.partial = {};
        for (std::uint8_t k = 0; k < kMaxValues; ++k) first.origin[k] = k;
        levels[0] = {place_of(first), from_.partial};
        for (std::uint32_t i = 1; i < n;) {
            const Vocab::Node& node = nodes[i];
            const Level parent = levels[node.depth - 1U];
            if (node.begins != 0 && parent.partial.none()) {
                const Place& place = places_[parent.place];
                if (place.slots != 0 && takes_all(place, node.chars, kind_sets[node.kinds])) {
                    i = node.end;
                    continue;
                }
            }
            Level& level = levels[node.depth];
            std::uint32_t next = 0;
            if (node.byte < 0x80 && parent.partial.none()) {
                level.partial = {};
                next = step(parent.place, program_.ascii[node.byte]);
            } else {
                next = step_wide(parent, node.byte, level.partial);
            }
            if (next == kDead) {
                reject(node.token, nodes[node.end].token);
                i = node.end;
                continue;
            }
            level.place = next;
            const std::uint32_t next_token = nodes[i + 1].token;
            if (node.token != next_token && !lands(level)) reject(node.token, next_token);
            if (node.end > i + 1 && level.partial.none() && (kind_sets[node.kinds] & places_[next].live) == 0) {
                reject(next_token, nodes[node.end].token);
                i = node.end;
                continue;
            }
            ++i;
        }
        return write();
    }

    void bounds(std::array<std::uint32_t, kMaxValues>& low,
                std::array<std::uint32_t, kMaxValues>& width) const noexcept {
        for (std::size_t k = 0; k < kMaxValues; ++k) {
            const std::uint32_t value = from_.values[k];
            low[k] = value - std::min(value, down_[k]);
            const std::uint32_t high = up_[k] > kUnlimited - value ? kUnlimited : value + up_[k];
            width[k] = high - low[k];
        }
    }

    // No token taken leads to a place from which it takes more tokens to end.
    [[nodiscard]] std::uint32_t worst() const noexcept { return worst_; }

  private:
    static constexpr std::uint8_t kNoOrigin = 0xFF;
    static constexpr std::uint32_t kDenseClasses = 256;
    static constexpr std::uint32_t kUnknown = 0xFFFFFFFFU;
    static constexpr std::uint32_t kDead = 0xFFFFFFFEU;

    // A text slot that takes any token of these kinds of characters, as long as it has no more of them than there is
    // room.
    struct Slot {
        std::uint64_t kinds = 0;
        std::uint32_t room = 0;
        std::uint32_t cost = 0;    // of the place inside the slot: bounds the cost of every place that is reached so
        std::uint32_t ragged = 0;  // the same inside a character
        std::uint8_t origin = kNoOrigin;
    };

    // A state at a character's boundary, with what the pass wants to know of it.
    struct Place {
        State state;
        std::array<std::uint8_t, kMaxValues> origin{};  // value of from_ that a value derives from
        std::uint8_t slots = 0;
        std::uint8_t cost_known = 0;
        std::uint32_t cost = 0;
        std::uint64_t live = 0;  // kinds of characters of which some may follow
        std::array<Slot, 2> slot{};
    };

    struct Level {
        std::uint32_t place = 0;
        PartialChar partial;
    };

    std::uint32_t place_of(const Place& place) {
        std::uint64_t hash = place.state.shape * 0x9E3779B97F4A7C15ULL;
        for (std::size_t k = 0; k < kMaxValues; ++k) {
            hash = (hash ^ (place.state.values[k] + (std::uint64_t{place.origin[k]} << 32U))) * 0x100000001B3ULL;
            hash ^= hash >> 29U;
        }
        const auto [from, to] = index_.equal_range(hash);
        for (auto it = from; it != to; ++it) {
            const Place& other = places_[it->second];
            if (other.state.shape == place.state.shape && other.state.values == place.state.values &&
                other.origin == place.origin) {
                return it->second;
            }
        }
        const auto number = static_cast<std::uint32_t>(places_.size());
        places_.push_back(place);
        index_.emplace(hash, number);
        if (dense_) steps_.resize(steps_.size() + program_.classes, kUnknown);
        automaton_.spend(64);
        enter(places_.back());
        return number;
    }

    std::uint32_t step(std::uint32_t from, std::uint32_t cls) {
        if (dense_) {
            const std::size_t at = static_cast<std::size_t>(from) * program_.classes + cls;
            if (steps_[at] == kUnknown) {
                const std::uint32_t next = make_step(from, cls);
                steps_[at] = next;
            }
            return steps_[at];
        }
        const std::uint64_t key = (static_cast<std::uint64_t>(from) << 32U) | cls;
        if (const auto it = sparse_steps_.find(key); it != sparse_steps_.end()) return it->second;
        const std::uint32_t next = make_step(from, cls);
        sparse_steps_.emplace(key, next);
        return next;
    }

    std::uint32_t step_wide(const Level& parent, std::uint8_t byte, PartialChar& partial) {
        partial = parent.partial;
        std::uint32_t cp = 0;
        switch (partial.push(byte, cp)) {
            case PartialChar::Status::bad:
                return kDead;
            case PartialChar::Status::partial: {
                State state = places_[parent.place].state;
                state.partial = partial;
                return automaton_.viable(state) ? parent.place : kDead;
            }
            case PartialChar::Status::complete:
                return step(parent.place, program_.class_of(cp));
        }
        return kDead;
    }

    std::uint32_t make_step(std::uint32_t from, std::uint32_t cls) {
        Place place = places_[from];
        automaton_.spend(4);
        // A refusal may depend on the counts too, so its ranges count as well.
        const Transition* const taken = automaton_.any_transition(place.state, cls);
        if (taken == nullptr) return kDead;
        for (std::size_t k = 0; k < taken->checked; ++k) {
            const std::uint8_t origin = place.origin[k];
            if (origin == kNoOrigin) continue;
            const std::uint32_t below = place.state.values[k] - taken->low[k];
            if (taken->low[k] != 0) down_[origin] = std::min(down_[origin], below);
            if (taken->low[k] + taken->width[k] != kUnlimited)
                up_[origin] = std::min(up_[origin], taken->width[k] - below);
        }
        if (taken->next == 0) return kDead;
        const std::array<std::uint8_t, kMaxValues> old = place.origin;
        place.origin.fill(kNoOrigin);
        for (std::size_t k = 0; k < taken->values; ++k) {
            if (taken->source[k] >= 0) place.origin[k] = old[static_cast<std::size_t>(taken->source[k])];
        }
        Automaton::follow(*taken, place.state);
        place.slots = 0;
        place.cost_known = 0;
        return place_of(place);
    }

    // Can one still end in time from here? Also keeps the record of the worst place.
    bool lands(const Level& level) {
        Place& place = places_[level.place];
        std::uint32_t cost = place.cost;
        if (!level.partial.none()) {
            State state = place.state;
            state.partial = level.partial;
            note_floors(place);
            cost = cache_.landing_.cost(state);
        } else if (place.cost_known == 0) {
            note_floors(place);
            cost = cache_.landing_.cost(place.state);
            place.cost = cost;
            place.cost_known = 1;
        }
        if (budget_ != kUnlimited && cost > budget_ - 1) return false;
        worst_ = std::max(worst_, cost);
        return true;
    }

    // The cost depends on counts only below their floors; notes that dependence.
    void note_floors(const Place& place) {
        const Landing::Fixed& fixed = cache_.landing_.fixed(place.state);
        for (std::size_t k = 0; k < kMaxValues; ++k) {
            if (fixed.floor[k] == 0) continue;
            const std::uint8_t origin = place.origin[k];
            if (origin == kNoOrigin) continue;
            if (place.state.values[k] >= fixed.floor[k]) {
                down_[origin] = std::min(down_[origin], place.state.values[k] - fixed.floor[k]);
            } else {
                down_[origin] = up_[origin] = 0;
            }
        }
    }

    // Finds the text slots that a place stands in, for all the subtrees that begin there.
    void enter(Place& place) {
        const Shape shape = automaton_.shape(place.state);
        // Characters that are not UTF-8 from here may be UTF-8 from where the state stands: never ruled out.
        place.live = kinds::kMalformed;
        for (std::uint32_t i = 0; i < shape.threads; ++i) {
            const Instruction& instruction = program_.code[automaton_.thread(shape, i).pc];
            if (instruction.op == Op::chars) place.live |= cache_.kinds_of(instruction.a).touching;
        }
        for (std::uint32_t i = 0; i < shape.loops && place.slots < place.slot.size(); ++i) {
            const TextLoop loop = automaton_.loops(shape)[i];
            Slot& slot = place.slot[place.slots];
            slot.room = kUnlimited;
            slot.origin = kNoOrigin;
            if (loop.max != kUnbounded) {
                const std::uint32_t count = loop.count.get(place.state);
                if (count + 1 >= loop.max) continue;
                slot.room = loop.max - 1 - count;
                if (loop.count.is_value()) slot.origin = place.origin[loop.count.index()];
            }
            if (!slot_cost(place, shape, loop.thread, slot)) continue;
            if (budget_ != kUnlimited && slot.cost > budget_ - 1) continue;
            slot.kinds = cache_.kinds_of(loop.set).inside;
            if (vocab_.can_finish() && (budget_ == kUnlimited || slot.ragged <= budget_ - 1))
                slot.kinds |= kinds::kRagged;
            ++place.slots;
        }
    }

    bool takes_all(const Place& place, std::uint32_t chars, std::uint64_t needed) {
        for (std::uint8_t k = 0; k < place.slots; ++k) {
            const Slot& slot = place.slot[k];
            if (chars > slot.room || (needed & ~slot.kinds) != 0) continue;
            worst_ = std::max(worst_, (needed & kinds::kRagged) != 0 ? std::max(slot.cost, slot.ragged) : slot.cost);
            if (slot.origin != kNoOrigin) up_[slot.origin] = std::min(up_[slot.origin], slot.room - chars);
            return true;
        }
        return false;
    }

    // What it costs to end from inside a text slot. False if that depends on rounds still owed.
    bool slot_cost(const Place& place, const Shape& shape, std::uint32_t thread, Slot& slot) {
        const ThreadView view = automaton_.thread(shape, thread);
        const std::uint32_t pc = view.pc;
        std::uint32_t scope = program_.code[pc].scope;
        for (std::uint32_t d = program_.depth(pc); d > 0; --d) {
            const Counter& counter = program_.counters[program_.scopes[scope].counter];
            if (counter.min > 1) {
                const Operand operand = view.counts[d - 1];
                const std::uint32_t count = operand.get(place.state);
                if (count + 1 < counter.min) return false;
                if (operand.is_value() && place.origin[operand.index()] != kNoOrigin) {
                    std::uint32_t& down = down_[place.origin[operand.index()]];
                    down = std::min(down, count + 1 - counter.min);
                }
            }
            scope = program_.scopes[scope].parent;
        }
        if (cache_.slot_costs_.empty()) cache_.slot_costs_.resize(program_.code.size());
        MaskCache::SlotCost& known = cache_.slot_costs_[pc];
        if (!known.known || program_.has_calls) {
            // With calls it depends on who called.
            known = {true, cache_.landing_.cost(place.state, shape, thread),
                     cache_.landing_.cost_after(place.state, shape, thread) + 3};
        }
        slot.cost = known.inside;
        slot.ragged = known.ragged;
        return true;
    }

    void reject(std::uint32_t from, std::uint32_t to) {
        if (from == to) return;
        if (!rejected_.empty() && rejected_.back().second == from) {
            rejected_.back().second = to;
        } else {
            rejected_.emplace_back(from, to);
        }
        rejected_count_ += to - from;
    }

    Mask write() {
        const std::vector<std::uint32_t>& order = vocab_.order();
        const auto total = static_cast<std::uint32_t>(order.size());
        Mask mask;
        mask.count = total - rejected_count_;
        if (rejected_count_ <= total / 2) {
            mask.words = vocab_.text_mask();
            for (const auto& [from, to] : rejected_) {
                for (std::uint32_t i = from; i < to; ++i) mask.words[order[i] >> 5U] &= ~(1U << (order[i] & 31U));
            }
        } else {
            mask.words.assign(vocab_.words(), 0);
            std::uint32_t at = 0;
            const auto take = [&](std::uint32_t to) {
                for (; at < to; ++at) mask.words[order[at] >> 5U] |= 1U << (order[at] & 31U);
            };
            for (const auto& [from, to] : rejected_) {
                take(from);
                at = to;
            }
            take(total);
        }
        if (automaton_.complete(from_)) {
            for (const std::uint32_t token : vocab_.ends()) {
                mask.words[token >> 5U] |= 1U << (token & 31U);
                ++mask.count;
            }
        }
        if (mask.count <= Mask::kFew) {
            for (std::size_t w = 0; w < mask.words.size(); ++w) {
                for (std::uint32_t rest = mask.words[w]; rest != 0; rest &= rest - 1) {
                    mask.few.push_back(static_cast<std::uint32_t>(w * 32) +
                                       static_cast<std::uint32_t>(std::countr_zero(rest)));
                }
            }
        }
        return mask;
    }

    MaskCache& cache_;
    Automaton& automaton_;
    const Program& program_;
    const Vocab& vocab_;
    const State from_;
    const std::uint32_t budget_;
    std::array<std::uint32_t, kMaxValues> down_{};  // how far a value of from_ may fall without changing anything
    std::array<std::uint32_t, kMaxValues> up_{};    // how far it may rise
    const bool dense_;
    std::vector<Place> places_;
    std::unordered_multimap<std::uint64_t, std::uint32_t> index_;
    std::vector<std::uint32_t> steps_;  // by place and class
    std::unordered_map<std::uint64_t, std::uint32_t> sparse_steps_;
    std::vector<std::pair<std::uint32_t, std::uint32_t>> rejected_;  // ranges of the trie's token order
    std::uint32_t rejected_count_ = 0;
    std::uint32_t worst_ = 0;
};

}  // namespace ltm::grammar
