// The sequence cache against a simulated KV memory and a naive search, over random operations.
//
// The simulated memory knows for every cell which token it holds, under which adapter state it was computed and which
// sequences see it at which position; that is the truth which the cache's own notes have to match.
#include <llama.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <map>
#include <random>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "check.h"
#include "engine/sequence_cache.h"
#include "support/error.h"

namespace {

using ltm::SequenceCache;
using ltm::StateId;
using Tokens = std::vector<llama_token>;

struct Cell {
    llama_token token = 0;
    StateId state = 0;
    int position = 0;
    std::set<int> sequences;
};

class SimulatedMemory final : public ltm::KvMemory {
  public:
    SimulatedMemory(bool can_cut, bool can_shift) : can_cut_(can_cut), can_shift_(can_shift) {}

    // Without cutting, a sequence is one state of its own: only all of it can go.
    bool remove(int seq, int from, int to) override {
        const int first = std::max(from, 0);
        const int end = to < 0 ? INT32_MAX : to;
        if (refuse_ && first > 0) return false;
        if (!can_cut_ && first > 0) {
            for (const Cell& cell : cells) {
                if (cell.sequences.contains(seq) && cell.position >= first && cell.position < end) return false;
            }
            return true;
        }
        for (Cell& cell : cells) {
            if (cell.position >= first && cell.position < end) cell.sequences.erase(seq);
        }
        sweep();
        return true;
    }
    void copy(int source, int target, int from, int to) override {
        const int first = std::max(from, 0);
        const int end = to < 0 ? INT32_MAX : to;
        for (Cell& cell : cells) {
            if (!cell.sequences.contains(source) || cell.position < first || cell.position >= end) continue;
            cell.sequences.insert(target);
        }
    }
    void shift(int seq, int from, int to, int delta) override {
        const int end = to < 0 ? INT32_MAX : to;
        for (Cell& cell : cells) {
            if (!cell.sequences.contains(seq) || cell.position < from || cell.position >= end) continue;
            shared_shift = shared_shift || cell.sequences.size() > 1;
            cell.position += delta;
        }
    }
    void clear() override { cells.clear(); }
    [[nodiscard]] bool can_shift() const override { return can_shift_; }
    [[nodiscard]] bool can_cut() const override { return can_cut_; }

    void compute(int seq, const Tokens& tokens, StateId state) {
        int position = static_cast<int>(read(seq).size());
        for (const llama_token token : tokens) cells.push_back({token, state, position++, {seq}});
    }
    // What a sequence sees, by position; a hole or two cells at one position show as a wrong token.
    [[nodiscard]] std::vector<std::pair<llama_token, StateId>> read(int seq) const {
        std::map<int, std::pair<llama_token, StateId>> seen;
        bool twice = false;
        for (const Cell& cell : cells) {
            if (cell.sequences.contains(seq)) {
                twice |= !seen.emplace(cell.position, std::pair(cell.token, cell.state)).second;
            }
        }
        std::vector<std::pair<llama_token, StateId>> out;
        for (const auto& [position, what] : seen) {
            if (twice || position != static_cast<int>(out.size())) return {{-1, 0}};
            out.push_back(what);
        }
        return out;
    }
    void refuse(bool on) { refuse_ = on; }

    std::vector<Cell> cells;
    bool shared_shift = false;  // cells were moved that another sequence sees too

  private:
    void sweep() {
        std::erase_if(cells, [](const Cell& cell) { return cell.sequences.empty(); });
    }
    bool can_cut_;
    bool can_shift_;
    bool refuse_ = false;
};

// Everything that the cache says of a sequence holds in the memory.
void compare(const SequenceCache& cache, const SimulatedMemory& memory, int n_seq) {
    int live = 0;
    for (int seq = 0; seq < n_seq; ++seq) {
        const auto seen = memory.read(seq);
        Tokens tokens;
        for (const auto& [token, state] : seen) tokens.push_back(token);
        if (tokens != cache.tokens(seq)) {
            check::report(false, __FILE__, __LINE__,
                          "sequence " + std::to_string(seq) + " is not what the memory holds");
        }
        ++check::checks;
        for (StateId base = 0; base < 3; ++base) {
            const StateId own = (base + 1) % 3;
            const auto valid = static_cast<std::size_t>(
                std::find_if(seen.begin(), seen.end(),
                             [&](const auto& one) { return one.second != base && one.second != own; }) -
                seen.begin());
            CHECK_EQ(cache.valid_prefix(seq, base, own), valid);
        }
        live += seen.empty() ? 0 : 1;
    }
    CHECK(cache.live() >= live && cache.live() <= live + cache.leased());
}

// The longest usable prefix, token by token over all sequences.
std::size_t longest_prefix(const SimulatedMemory& memory, int n_seq, const Tokens& tokens, std::size_t most,
                           StateId base, StateId own) {
    std::size_t best = 0;
    for (int seq = 0; seq < n_seq; ++seq) {
        const auto seen = memory.read(seq);
        std::size_t length = 0;
        while (length < seen.size() && length < tokens.size() && length < most &&
               seen[length].first == tokens[length] && (seen[length].second == base || seen[length].second == own)) {
            ++length;
        }
        if (memory.can_cut() || length == seen.size()) best = std::max(best, length);
    }
    return best;
}

struct Held {
    SequenceCache::Lease lease;
    StateId base = 0;
    StateId own = 0;
};

class Walk {
  public:
    Walk(unsigned seed, int n_seq, bool can_cut, bool can_shift)
        : random_(seed), n_seq_(n_seq), memory_(can_cut, can_shift), cache_(memory_, n_seq) {}

    void run(int steps) {
        for (int step = 0; step < steps && check::failures == 0; ++step) {
            one();
            CHECK_EQ(cache_.leased(), static_cast<int>(held_.size()));
            compare(cache_, memory_, n_seq_);
            CHECK(!memory_.shared_shift);
            for (const Held& held : held_) {
                for (const auto& [token, state] : memory_.read(held.lease.seq())) {
                    CHECK(state == held.base || state == held.own);
                }
            }
        }
        // However a walk ends, every place comes free again.
        held_.clear();
        CHECK_EQ(cache_.leased(), 0);
        while (cache_.evict()) compare(cache_, memory_, n_seq_);
        CHECK_EQ(cache_.live(), 0);
        CHECK(memory_.cells.empty());
        std::vector<SequenceCache::Lease> all;
        for (int i = 0; i < n_seq_; ++i) all.push_back(cache_.branch({1, 2}, 2, 0, 0));
        CHECK_THROWS((void)cache_.branch({1, 2}, 2, 0, 0), ltm::Error);
    }

    std::size_t reused = 0;
    int rebased = 0;

  private:
    std::size_t below(std::size_t n) { return static_cast<std::size_t>(random_() % n); }

    Tokens text() {
        // Mostly what some sequence holds, cut and continued, so that prefixes meet.
        Tokens out;
        if (below(4) != 0) out = cache_.tokens(static_cast<int>(below(static_cast<std::size_t>(n_seq_))));
        if (!out.empty() && below(2) == 0) out.resize(below(out.size()) + 1);
        for (std::size_t more = below(5); more > 0; --more) out.push_back(static_cast<llama_token>(below(3)));
        if (out.size() > 24) out.resize(24);
        return out;
    }

    void one() {
        switch (below(12)) {
            case 0:
            case 1:
            case 2:
                return branch();
            case 3:
            case 4:
            case 5:
                return append();
            case 6:
                return truncate();
            case 7:
                return rebase();
            case 8:
                if (below(8) == 0) evict();
                return;
            case 9:
                if (!held_.empty()) cache_.make_spine(held_[below(held_.size())].lease.seq());
                return;
            case 10:
                if (below(60) == 0) {
                    cache_.clear();
                    CHECK(memory_.cells.empty());
                } else {
                    adopt();
                }
                return;
            default:
                return release();
        }
    }

    void branch() {
        const Tokens tokens = text();
        const std::size_t most = below(3) == 0 ? below(tokens.size() + 1) : tokens.size();
        const auto base = static_cast<StateId>(below(3));
        const auto own = static_cast<StateId>(below(3));
        const std::size_t expected = longest_prefix(memory_, n_seq_, tokens, most, base, own);
        if (most == tokens.size()) CHECK_EQ(cache_.reusable(tokens, base, own), expected);
        if (static_cast<int>(held_.size()) == n_seq_) {
            CHECK_THROWS((void)cache_.branch(tokens, most, base, own), ltm::Error);
            return;
        }
        std::vector<std::pair<int, Tokens>> before;
        for (const Held& held : held_) before.emplace_back(held.lease.seq(), cache_.tokens(held.lease.seq()));
        Held held{cache_.branch(tokens, most, base, own), base, own};
        for (const auto& [seq, was] : before) {
            CHECK(seq != held.lease.seq());
            CHECK(cache_.tokens(seq) == was);  // what is in use is never evicted
        }
        CHECK_EQ(cache_.length(held.lease.seq()), expected);
        CHECK(
            std::equal(cache_.tokens(held.lease.seq()).begin(), cache_.tokens(held.lease.seq()).end(), tokens.begin()));
        reused += expected;
        held_.push_back(std::move(held));
    }

    void append() {
        if (held_.empty()) return;
        const Held& held = held_[below(held_.size())];
        Tokens tokens(1 + below(4));
        for (llama_token& token : tokens) token = static_cast<llama_token>(below(3));
        const StateId state = below(4) == 0 ? held.base : held.own;
        if (cache_.length(held.lease.seq()) > 30) return;
        memory_.compute(held.lease.seq(), tokens, state);
        cache_.append(held.lease.seq(), tokens.data(), tokens.size(), state);
    }

    void truncate() {
        if (held_.empty()) return;
        const int seq = held_[below(held_.size())].lease.seq();
        const std::size_t was = cache_.length(seq);
        const std::size_t length = below(was + 2);
        const std::size_t left = cache_.truncate(seq, length);
        CHECK_EQ(left, cache_.length(seq));
        CHECK_EQ(left, memory_.can_cut() || length >= was ? std::min(length, was) : 0U);
    }

    void adopt() {
        if (held_.size() < 2 || !memory_.can_cut()) return;
        const Held& to = held_[below(held_.size())];
        const Held& from = held_[below(held_.size())];
        const int seq = to.lease.seq();
        if (from.lease.seq() == seq) return;
        // The caller answers for the states: it takes no more than they allow.
        const std::size_t most = cache_.valid_prefix(from.lease.seq(), to.base, to.own);
        if (most == 0) return;
        cache_.truncate(seq, 0);
        const std::size_t count = 1 + below(most);
        cache_.adopt(seq, from.lease.seq(), count);
        CHECK_EQ(cache_.length(seq), count);
    }

    void rebase() {
        if (below(3) != 0) return;
        if (below(3) != 0) {
            for (Held& held : held_) held.lease.keep();
            held_.clear();
        }
        const Tokens tokens = text();
        const std::size_t keep = below(4);
        const std::size_t count = below(5);
        const auto base = static_cast<StateId>(below(3));
        const std::size_t before = longest_prefix(memory_, n_seq_, tokens, tokens.size(), base, base);
        const int live = cache_.live();
        const std::size_t moved = cache_.rebase(tokens, keep, count, base);
        if (moved == 0) {
            CHECK_EQ(cache_.live(), live);  // what can't be done costs nothing
            return;
        }
        CHECK(held_.empty());
        ++rebased;
        // The longest one under the base state is what moves.
        CHECK_EQ(moved, before - keep - count);
        Tokens rest(tokens.begin(), tokens.begin() + static_cast<std::ptrdiff_t>(keep));
        rest.insert(rest.end(), tokens.begin() + static_cast<std::ptrdiff_t>(keep + count),
                    tokens.begin() + static_cast<std::ptrdiff_t>(before));
        CHECK_EQ(cache_.reusable(rest, base, base), rest.size());
        CHECK_EQ(cache_.live(), 1);
    }

    void evict() {
        const int live = cache_.live();
        const bool went = cache_.evict();
        CHECK_EQ(went, live > static_cast<int>(held_.size()));
        CHECK_EQ(cache_.live(), live - (went ? 1 : 0));
    }

    void release() {
        if (held_.empty()) return;
        const std::size_t which = below(held_.size());
        Held& held = held_[which];
        const int seq = held.lease.seq();
        const Tokens tokens = cache_.tokens(seq);
        const bool keep = below(3) != 0;
        if (keep) held.lease.keep();
        held_.erase(held_.begin() + static_cast<std::ptrdiff_t>(which));
        CHECK(cache_.tokens(seq) == (keep ? tokens : Tokens{}));
    }

    std::mt19937 random_;
    int n_seq_;
    SimulatedMemory memory_;
    SequenceCache cache_;
    std::vector<Held> held_;
};

void put(SequenceCache& cache, SimulatedMemory& memory, SequenceCache::Lease& lease, const Tokens& tokens,
         StateId state) {
    memory.compute(lease.seq(), tokens, state);
    cache.append(lease.seq(), tokens.data(), tokens.size(), state);
}

void keep(SequenceCache& cache, SimulatedMemory& memory, const Tokens& tokens, StateId state, bool spine = false) {
    SequenceCache::Lease lease = cache.branch({}, 0, state, state);
    put(cache, memory, lease, tokens, state);
    if (spine) cache.make_spine(lease.seq());
    lease.keep();
}

void the_spine_goes_last() {
    SimulatedMemory memory(true, true);
    SequenceCache cache(memory, 3);
    keep(cache, memory, {1, 1, 1}, 0, true);
    keep(cache, memory, {2, 2, 2}, 0);
    keep(cache, memory, {3, 3, 3}, 0);
    CHECK_EQ(cache.reusable({2, 2}, 0, 0), 2U);
    {
        const SequenceCache::Lease touched = cache.branch({2, 2}, 2, 0, 0);
    }  // evicts 3: 2 is its source
    CHECK_EQ(cache.reusable({3, 3}, 0, 0), 0U);
    CHECK_EQ(cache.reusable({2, 2}, 0, 0), 2U);
    CHECK(cache.evict());
    CHECK_EQ(cache.reusable({1, 1}, 0, 0), 2U);
    CHECK(cache.evict());
    CHECK(!cache.evict());
}

void the_only_sequence_left_goes_on_itself() {
    SimulatedMemory memory(true, true);
    SequenceCache cache(memory, 1);
    keep(cache, memory, {1, 2, 3, 4}, 0);
    const SequenceCache::Lease lease = cache.branch({1, 2, 5}, 3, 0, 0);
    CHECK(cache.tokens(lease.seq()) == Tokens({1, 2}));
    compare(cache, memory, 1);
}

void a_longer_one_replaces_its_beginning_only_under_the_same_states() {
    SimulatedMemory memory(true, true);
    SequenceCache cache(memory, 4);
    keep(cache, memory, {1, 2}, 0, true);
    keep(cache, memory, {1, 2, 3}, 1);
    CHECK_EQ(cache.live(), 2);  // another state: both are needed
    keep(cache, memory, {1, 2, 4}, 0);
    CHECK_EQ(cache.live(), 2);
    // The spine went on in the one that begins with it.
    CHECK(cache.evict());
    CHECK_EQ(cache.reusable({1, 2, 4}, 0, 0), 3U);
}

void a_lease_that_moves_is_given_back_once() {
    SimulatedMemory memory(true, true);
    SequenceCache cache(memory, 3);
    SequenceCache::Lease a = cache.branch({}, 0, 0, 0);
    SequenceCache::Lease b = cache.branch({}, 0, 0, 0);
    put(cache, memory, b, {7, 8}, 0);
    b.keep();
    a = std::move(b);
    CHECK_EQ(cache.leased(), 1);
    a.release();
    a.release();
    CHECK_EQ(cache.leased(), 0);
    CHECK_EQ(cache.reusable({7, 8}, 0, 0), 2U);
}

// A memory that refuses a cut after all, as one with a sliding window may: nothing wrong is left behind.
void a_refused_cut() {
    SimulatedMemory memory(true, true);
    SequenceCache cache(memory, 3);
    keep(cache, memory, {1, 2, 3, 4, 5, 6}, 0);
    memory.refuse(true);
    CHECK_EQ(cache.rebase({1, 2, 3, 4, 9}, 1, 1, 0), 0U);
    compare(cache, memory, 3);
    SequenceCache::Lease lease = cache.branch({}, 0, 0, 0);
    put(cache, memory, lease, {1, 2, 3}, 0);
    CHECK_EQ(cache.truncate(lease.seq(), 2), 0U);
    compare(cache, memory, 3);
}

}  // namespace

int main() {
    the_spine_goes_last();
    the_only_sequence_left_goes_on_itself();
    a_longer_one_replaces_its_beginning_only_under_the_same_states();
    a_lease_that_moves_is_given_back_once();
    a_refused_cut();
    struct Kind {
        int n_seq;
        bool can_cut;
        bool can_shift;
    };
    unsigned seed = 1;
    for (const Kind& kind : {Kind{6, true, true}, Kind{2, true, true}, Kind{1, true, true}, Kind{6, true, false},
                             Kind{5, false, false}, Kind{1, false, false}}) {
        std::size_t reused = 0;
        int rebased = 0;
        for (int round = 0; round < 50; ++round) {
            Walk walk(seed++, kind.n_seq, kind.can_cut, kind.can_shift);
            walk.run(1000);
            reused += walk.reused;
            rebased += walk.rebased;
        }
        // The walks do what they are meant to try.
        CHECK(reused > 100);
        CHECK(kind.can_shift ? rebased > 25 : rebased == 0);
        std::printf("%d sequences: %zu tokens reused, %d rebases\n", kind.n_seq, reused, rebased);
    }
    return check_report();
}
