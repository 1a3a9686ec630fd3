#include "engine/sequence_cache.h"

#include <algorithm>

#include "support/error.h"

namespace ltm {

SequenceCache::SequenceCache(KvMemory& memory, int n_seq) : memory_(memory), entries_(index(std::max(n_seq, 1))) {}

SequenceCache::Lease& SequenceCache::Lease::operator=(Lease&& other) noexcept {
    if (this != &other) {
        release();
        cache_ = other.cache_;
        seq_ = other.seq_;
        keep_ = other.keep_;
        other.cache_ = nullptr;
    }
    return *this;
}

void SequenceCache::Lease::release() noexcept {
    if (cache_ != nullptr) cache_->give_back(seq_, keep_);
    cache_ = nullptr;
}

std::size_t SequenceCache::valid_prefix(int seq, StateId base, StateId own) const {
    std::size_t valid = 0;
    for (const Segment& segment : entries_[index(seq)].segments) {
        if (segment.state != base && segment.state != own) break;
        valid = segment.end;
    }
    return valid;
}

SequenceCache::Match SequenceCache::find(const std::vector<llama_token>& tokens, std::size_t most, StateId base,
                                         StateId own) const {
    Match best;
    for (std::size_t i = 0; i < entries_.size(); ++i) {
        const Entry& entry = entries_[i];
        if (!entry.live) continue;
        const auto differ = std::mismatch(entry.tokens.begin(), entry.tokens.end(), tokens.begin(), tokens.end());
        std::size_t length = static_cast<std::size_t>(differ.first - entry.tokens.begin());
        length = std::min({length, valid_prefix(static_cast<int>(i), base, own), most});
        if (!memory_.can_cut() && length != entry.tokens.size()) continue;
        if (length > best.length || (length == best.length && length > 0 && entry.spine)) {
            best = {static_cast<int>(i), length};
        }
    }
    return best;
}

std::size_t SequenceCache::reusable(const std::vector<llama_token>& tokens, StateId base, StateId own) const {
    return find(tokens, tokens.size(), base, own).length;
}

SequenceCache::Lease SequenceCache::branch(const std::vector<llama_token>& tokens, std::size_t most, StateId base,
                                           StateId own) {
    const Match match = find(tokens, most, base, own);
    // The source may not be evicted to make room for its own branch.
    const bool was_leased = match.seq >= 0 && entries_[index(match.seq)].leased;
    if (match.seq >= 0) entries_[index(match.seq)].leased = true;
    auto free_entry = [this] {
        return std::find_if(entries_.begin(), entries_.end(), [](const Entry& e) { return !e.live && !e.leased; });
    };
    auto place = free_entry();
    if (place == entries_.end() && evict()) place = free_entry();
    if (match.seq >= 0) entries_[index(match.seq)].leased = was_leased;
    if (place == entries_.end() && match.seq >= 0 && !was_leased) {
        // The only sequence left is the source itself: it is cut and gone on with.
        Entry& entry = entries_[index(match.seq)];
        entry.leased = true;
        entry.spine = false;
        Lease lease(*this, match.seq);
        truncate(match.seq, match.length);
        return lease;
    }
    if (place == entries_.end()) {
        throw Error(ErrorCode::engine, "context: all " + std::to_string(entries_.size()) + " sequences are in use");
    }
    const int seq = static_cast<int>(place - entries_.begin());
    *place = Entry{};
    place->live = place->leased = true;
    place->used = ++clock_;
    Lease lease(*this, seq);
    if (match.length > 0) adopt(seq, match.seq, match.length);
    return lease;
}

void SequenceCache::adopt(int seq, int source, std::size_t count) {
    Entry& entry = entries_[index(seq)];
    Entry& from = entries_[index(source)];
    memory_.copy(source, seq, 0, memory_.can_cut() ? static_cast<int>(count) : -1);
    entry.tokens.assign(from.tokens.begin(), from.tokens.begin() + static_cast<std::ptrdiff_t>(count));
    entry.segments = from.segments;
    cut_segments(entry, count);
    from.used = ++clock_;
}

void SequenceCache::append(int seq, const llama_token* tokens, std::size_t count, StateId state) {
    if (count == 0) return;
    Entry& entry = entries_[index(seq)];
    entry.tokens.insert(entry.tokens.end(), tokens, tokens + count);
    if (!entry.segments.empty() && entry.segments.back().state == state) {
        entry.segments.back().end = entry.tokens.size();
    } else {
        entry.segments.push_back({entry.tokens.size(), state});
    }
}

void SequenceCache::cut_segments(Entry& entry, std::size_t length) {
    while (!entry.segments.empty()) {
        const std::size_t start = entry.segments.size() > 1 ? entry.segments[entry.segments.size() - 2].end : 0;
        if (start < length) {
            entry.segments.back().end = std::min(entry.segments.back().end, length);
            return;
        }
        entry.segments.pop_back();
    }
}

std::size_t SequenceCache::truncate(int seq, std::size_t length) {
    Entry& entry = entries_[index(seq)];
    if (length > 0 && memory_.remove(seq, static_cast<int>(length), -1)) {
        entry.tokens.resize(std::min(length, entry.tokens.size()));
        cut_segments(entry, entry.tokens.size());
        return entry.tokens.size();
    }
    memory_.remove(seq, -1, -1);
    entry.tokens.clear();
    entry.segments.clear();
    return 0;
}

std::size_t SequenceCache::rebase(const std::vector<llama_token>& tokens, std::size_t keep, std::size_t count,
                                  StateId base) {
    if (!memory_.can_shift() || !memory_.can_cut() || count == 0 || leased() > 0) return 0;
    const Match match = find(tokens, tokens.size(), base, base);
    if (match.length <= keep + count) return 0;
    const int seq = match.seq;
    // Cells that other sequences hold too would be shifted under them, so those go.
    for (std::size_t other = 0; other < entries_.size(); ++other) {
        if (static_cast<int>(other) != seq && entries_[other].live) drop(static_cast<int>(other));
    }
    const auto from = static_cast<int>(keep);
    const auto to = static_cast<int>(keep + count);
    if (truncate(seq, match.length) != match.length || !memory_.remove(seq, from, to)) {
        drop(seq);
        return 0;
    }
    memory_.shift(seq, to, -1, from - to);
    Entry& entry = entries_[index(seq)];
    entry.tokens.erase(entry.tokens.begin() + from, entry.tokens.begin() + to);
    entry.segments.assign(1, {entry.tokens.size(), base});
    return entry.tokens.size() - keep;
}

void SequenceCache::make_spine(int seq) {
    for (Entry& entry : entries_) entry.spine = false;
    entries_[index(seq)].spine = true;
}

bool SequenceCache::evict() {
    const Entry* oldest = nullptr;
    for (const Entry& entry : entries_) {
        if (!entry.live || entry.leased) continue;
        if (oldest == nullptr || entry.spine < oldest->spine ||
            (entry.spine == oldest->spine && entry.used < oldest->used)) {
            oldest = &entry;
        }
    }
    if (oldest == nullptr) return false;
    drop(static_cast<int>(oldest - entries_.data()));
    return true;
}

void SequenceCache::clear() {
    memory_.clear();
    for (Entry& entry : entries_) {
        entry.tokens.clear();
        entry.segments.clear();
        entry.spine = false;
        if (!entry.leased) entry.live = false;
    }
}

void SequenceCache::drop(int seq) {
    memory_.remove(seq, -1, -1);
    entries_[index(seq)] = Entry{};
}

void SequenceCache::give_back(int seq, bool keep) {
    Entry& entry = entries_[index(seq)];
    entry.leased = false;
    if (!keep || entry.tokens.empty()) {
        drop(seq);
        return;
    }
    entry.used = ++clock_;
    drop_prefixes_of(seq);
}

void SequenceCache::drop_prefixes_of(int seq) {
    // A sequence that is the beginning of another one saves nothing more, and costs a place.
    const Entry& kept = entries_[index(seq)];
    for (std::size_t i = 0; i < entries_.size(); ++i) {
        const Entry& entry = entries_[i];
        if (static_cast<int>(i) == seq || !entry.live || entry.leased || !memory_.can_cut()) continue;
        if (entry.tokens.size() > kept.tokens.size()) continue;
        if (!std::equal(entry.tokens.begin(), entry.tokens.end(), kept.tokens.begin())) continue;
        bool same_states = true;
        std::size_t start = 0;
        for (const Segment& segment : entry.segments) {
            std::size_t other_start = 0;
            for (const Segment& other : kept.segments) {
                const bool overlaps = other_start < segment.end && start < other.end;
                if (overlaps && other.state != segment.state) same_states = false;
                other_start = other.end;
            }
            start = segment.end;
        }
        if (same_states) {
            const bool spine = entry.spine;
            drop(static_cast<int>(i));
            if (spine) entries_[index(seq)].spine = true;
        }
    }
}

std::size_t SequenceCache::longest() const noexcept {
    std::size_t most = 0;
    for (const Entry& entry : entries_) {
        if (entry.live) most = std::max(most, entry.tokens.size());
    }
    return most;
}

std::size_t SequenceCache::held() const noexcept {
    std::size_t sum = 0;
    for (const Entry& entry : entries_) sum += entry.tokens.size();
    return sum;
}

int SequenceCache::live() const noexcept {
    return static_cast<int>(std::count_if(entries_.begin(), entries_.end(), [](const Entry& e) { return e.live; }));
}

int SequenceCache::leased() const noexcept {
    return static_cast<int>(std::count_if(entries_.begin(), entries_.end(), [](const Entry& e) { return e.leased; }));
}

}  // namespace ltm
