#include "grammar/mask_cache.h"

#include <algorithm>
#include <bit>
#include <chrono>
#include <limits>

#include "grammar/trie_walk.h"

namespace ltm::grammar {
namespace {

// Alternatives by value kept per place; beyond, the oldest are computed again when met.
constexpr std::size_t kMostAlternatives = 512;

std::uint64_t hash_mask(const std::vector<std::uint32_t>& words) noexcept {
    std::uint64_t a = 0x9E3779B97F4A7C15ULL;
    std::uint64_t b = 0xC2B2AE3D27D4EB4FULL;
    for (std::size_t i = 0; i + 1 < words.size(); i += 2) {
        a = (a ^ words[i]) * 0x100000001B3ULL;
        b = (b ^ words[i + 1]) * 0x9FB21C651E98DF25ULL;
        b ^= b >> 31U;
    }
    if (words.size() % 2 == 1) a ^= words.back() * 0x9E3779B97F4A7C15ULL;
    return a ^ (b + (a >> 29U));
}

}  // namespace

void Mask::apply(float* logits, std::size_t n) const {
    constexpr float no = -std::numeric_limits<float>::infinity();
    const std::size_t covered = std::min(n, words.size() * 32);
    for (std::size_t w = 0; w * 32 < covered; ++w) {
        const std::uint32_t word = words[w];
        if (word == 0xFFFFFFFFU) continue;
        const std::size_t first = w * 32;
        const std::size_t last = std::min(first + 32, covered);
        if (word == 0) {
            std::fill(logits + first, logits + last, no);
            continue;
        }
        for (std::uint32_t rest = ~word; rest != 0; rest &= rest - 1) {
            const std::size_t token = first + static_cast<std::size_t>(std::countr_zero(rest));
            if (token < last) logits[token] = no;
        }
    }
    // A model may have more logits than the vocabulary has tokens (padding): those are never allowed.
    if (n > covered) std::fill(logits + covered, logits + n, no);
}

MaskCache::MaskCache(std::shared_ptr<const Grammar> grammar, std::shared_ptr<const Vocab> vocab)
    : grammar_(std::move(grammar)),
      vocab_(std::move(vocab)),
      automaton_(grammar_->program(), grammar_->limits()),
      landing_(grammar_->distances(), automaton_, *vocab_),
      set_kinds_(grammar_->program().sets.size()) {}

const MaskCache::SetKinds& MaskCache::kinds_of(std::uint32_t set) {
    SetKinds& kinds = set_kinds_[set];
    if (!kinds.known) {
        const CodePointSet& points = grammar_->program().sets[set].points;
        kinds = {true, kinds::inside(points), kinds::touching(points)};
    }
    return kinds;
}

MaskPtr MaskCache::keep(Mask&& mask) {
    const std::uint64_t hash = hash_mask(mask.words);
    const auto [from, to] = masks_.equal_range(hash);
    for (auto it = from; it != to; ++it) {
        if (it->second->words == mask.words) return it->second;
    }
    auto kept = std::make_shared<const Mask>(std::move(mask));
    const std::size_t size = kept->words.size() * 4 + kept->few.size() * 4 + 128;
    if (mask_bytes_ + size > grammar_->limits().mask_bytes) {
        // Start over: whoever still holds a mask keeps it alive.
        masks_.clear();
        entries_.clear();
        entry_count_ = 0;
        mask_bytes_ = 0;
    }
    mask_bytes_ += size;
    masks_.emplace(hash, kept);
    return kept;
}

const MaskCache::Entry& MaskCache::entry(const State& state) {
    const std::uint64_t key = (static_cast<std::uint64_t>(state.shape) << 32U) | state.partial.bits();
    if (const auto it = entries_.find(key); it != entries_.end()) {
        for (const Entry& entry : it->second) {
            bool holds = true;
            for (std::size_t k = 0; k < kMaxValues; ++k)
                holds = holds && state.values[k] - entry.low[k] <= entry.width[k];
            if (holds) return entry;
        }
    }
    automaton_.begin_call();
    TrieWalk walk(*this, state, TrieWalk::kUnlimited);
    Entry made;
    Mask mask = walk.run();
    walk.bounds(made.low, made.width);
    made.landing = walk.worst();
    made.mask = keep(std::move(mask));
    ++computed_;
    std::vector<Entry>& list = entries_[key];
    if (list.size() >= kMostAlternatives) list.erase(list.begin());
    list.push_back(std::move(made));
    ++entry_count_;
    return list.back();
}

State MaskCache::start() {
    const std::lock_guard lock(mutex_);
    return automaton_.start();
}

MaskPtr MaskCache::mask(const State& state) {
    const std::lock_guard lock(mutex_);
    return entry(state).mask;
}

MaskPtr MaskCache::mask(const State& state, std::uint32_t budget) {
    const std::lock_guard lock(mutex_);
    if (budget == 0) {
        Mask end;
        end.words.assign(vocab_->words(), 0);
        if (automaton_.complete(state)) {
            for (const std::uint32_t token : vocab_->ends()) end.words[token >> 5U] |= 1U << (token & 31U);
            end.few = vocab_->ends();
            end.count = static_cast<std::uint32_t>(end.few.size());
        }
        return std::make_shared<const Mask>(std::move(end));
    }
    const Entry& known = entry(state);
    if (budget > known.landing) return known.mask;
    automaton_.begin_call();
    TrieWalk walk(*this, state, budget);
    return std::make_shared<const Mask>(walk.run());
}

bool MaskCache::advance(State& state, std::uint32_t token, Work work) {
    if (token >= vocab_->size() || vocab_->kind(token) != TokenKind::text) return false;
    return advance_bytes(state, vocab_->piece(token), work);
}

bool MaskCache::advance_bytes(State& state, std::string_view bytes, Work work) {
    const std::lock_guard lock(mutex_);
    begin(work);
    State next = state;
    for (const char byte : bytes) {
        if (!automaton_.step(next, static_cast<std::uint8_t>(byte))) return false;
    }
    state = next;
    return true;
}

bool MaskCache::complete(const State& state) {
    const std::lock_guard lock(mutex_);
    return automaton_.complete(state);
}

bool MaskCache::open(const State& state) {
    const std::lock_guard lock(mutex_);
    return automaton_.shape(state).least != 0;
}

std::uint32_t MaskCache::cost(const State& state, Work work) {
    const std::lock_guard lock(mutex_);
    begin(work);
    return landing_.cost(state);
}

std::string MaskCache::forced(State& state, std::size_t most) {
    const std::lock_guard lock(mutex_);
    automaton_.begin_call();
    return automaton_.forced(state, most);
}

bool MaskCache::continues(const State& state, std::uint32_t node, Work work) {
    const std::lock_guard lock(mutex_);
    begin(work);
    const auto& nodes = vocab_->nodes();
    std::vector<State> path{state};
    const std::size_t depth = nodes[node].depth;
    for (std::uint32_t i = node + 1; i < nodes[node].end;) {
        path.resize(nodes[i].depth - depth);
        State next = path.back();
        if (!automaton_.step(next, nodes[i].byte)) {
            i = nodes[i].end;
            continue;
        }
        if (vocab_->has_token(i)) return true;
        path.push_back(next);
        ++i;
    }
    return false;
}

std::size_t MaskCache::prepare(const State& state, std::string_view bytes, double milliseconds) {
    const auto from = std::chrono::steady_clock::now();
    State at = state;
    std::size_t before = 0;
    std::size_t after = 0;
    {
        const std::lock_guard lock(mutex_);
        before = after = computed_;
    }
    for (std::size_t i = 0; i <= bytes.size(); ++i) {
        if (std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - from).count() > milliseconds)
            break;
        const std::lock_guard lock(mutex_);
        if (at.partial.none()) (void)entry(at);
        after = computed_;
        automaton_.begin_call();
        if (i == bytes.size() || !automaton_.step(at, static_cast<std::uint8_t>(bytes[i]))) break;
    }
    return after - before;
}

MaskStatistics MaskCache::statistics() const {
    const std::lock_guard lock(mutex_);
    return {masks_.size(),
            entry_count_,
            mask_bytes_ + entry_count_ * sizeof(Entry) + automaton_.bytes() + landing_.bytes(),
            computed_,
            automaton_.shape_count(),
            automaton_.transition_count()};
}

}  // namespace ltm::grammar
