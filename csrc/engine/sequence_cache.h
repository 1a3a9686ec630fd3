// Which tokens' KV stands in which sequence of a context, and under which adapters each of them was computed.
//
// A context has one unified KV: sequences that were copied from one another share cells. What a finished pass leaves
// stays as a cached sequence until its place is needed, least recently used first, the spine last.
#pragma once

#include <llama.h>

#include <cstddef>
#include <cstdint>
#include <vector>

namespace ltm {

// An adapter state as a number that its context gave it; equal numbers are equal states.
using StateId = std::uint32_t;

// The operations of llama.cpp's memory that a cache needs; positions are [from, to), to < 0 means the end.
class KvMemory {
  public:
    virtual ~KvMemory() = default;
    virtual bool remove(int seq, int from, int to) = 0;  // false: this kind of memory can't be cut there
    virtual void copy(int source, int target, int from, int to) = 0;
    virtual void shift(int seq, int from, int to, int delta) = 0;
    virtual void clear() = 0;
    [[nodiscard]] virtual bool can_shift() const = 0;
    // False for recurrent and hybrid models: a state holds the whole past, so that only whole sequences can be reused.
    [[nodiscard]] virtual bool can_cut() const = 0;
};

class SequenceCache {
  public:
    SequenceCache(KvMemory& memory, int n_seq);

    // A sequence in use by a pass. Gives it back however the pass ends: dropped, unless `keep` was called.
    class Lease {
      public:
        Lease() = default;
        Lease(SequenceCache& cache, int seq) : cache_(&cache), seq_(seq) {}
        Lease(Lease&& other) noexcept : cache_(other.cache_), seq_(other.seq_), keep_(other.keep_) {
            other.cache_ = nullptr;
        }
        Lease& operator=(Lease&& other) noexcept;
        Lease(const Lease&) = delete;
        Lease& operator=(const Lease&) = delete;
        ~Lease() { release(); }

        [[nodiscard]] int seq() const noexcept { return seq_; }
        [[nodiscard]] explicit operator bool() const noexcept { return cache_ != nullptr; }
        void keep() noexcept { keep_ = true; }
        void release() noexcept;

      private:
        SequenceCache* cache_ = nullptr;
        int seq_ = -1;
        bool keep_ = false;
    };

    // A new sequence that begins with as many of `tokens` as some cached one holds, at most `most`, computed under
    // `base` or `own` only. Evicts if no sequence is free. Throws Error(engine) if all are leased.
    [[nodiscard]] Lease branch(const std::vector<llama_token>& tokens, std::size_t most, StateId base, StateId own);
    // Extends an empty leased sequence with the first `count` tokens of another one. The caller answers for the states.
    void adopt(int seq, int source, std::size_t count);
    // How many of `tokens` the sequence that `branch` would choose holds.
    [[nodiscard]] std::size_t reusable(const std::vector<llama_token>& tokens, StateId base, StateId own) const;

    // Notes tokens whose KV was computed at the end of a sequence.
    void append(int seq, const llama_token* tokens, std::size_t count, StateId state);
    // Removes what stands behind `length` tokens. Where the memory can't be cut the whole sequence goes: then 0 tokens
    // are left. Returns what is left. Also clears cells of an aborted batch.
    std::size_t truncate(int seq, std::size_t length);
    // Drops tokens [keep, keep + count) of the cached sequence that holds most of `tokens` under `base` and moves the
    // rest to the front, keys shifted; all other sequences go. What remains was computed in sight of what left, so it
    // is close to, not equal to, a fresh computation. Returns how many tokens were moved; 0 if there is nothing to move
    // or it can't be done.
    std::size_t rebase(const std::vector<llama_token>& tokens, std::size_t keep, std::size_t count, StateId base);

    // Makes a leased sequence the one that is evicted last; another one that was it is an ordinary one from then on.
    void make_spine(int seq);
    // Frees the cached sequence that was used least recently; false if none is left that is not leased.
    bool evict();
    void clear();

    [[nodiscard]] const std::vector<llama_token>& tokens(int seq) const { return entries_[index(seq)].tokens; }
    [[nodiscard]] std::size_t length(int seq) const { return entries_[index(seq)].tokens.size(); }
    // Longest of the cached sequences' tokens, for statistics.
    [[nodiscard]] std::size_t longest() const noexcept;
    // Tokens of all sequences; cells that several of them share are counted for each.
    [[nodiscard]] std::size_t held() const noexcept;
    [[nodiscard]] int live() const noexcept;    // sequences that hold something
    [[nodiscard]] int leased() const noexcept;  // sequences in use by a pass
    // Number of leading tokens of a sequence computed under `base` or `own`.
    [[nodiscard]] std::size_t valid_prefix(int seq, StateId base, StateId own) const;

  private:
    struct Segment {
        std::size_t end;  // tokens [previous end, end) were computed under `state`
        StateId state;
    };
    struct Entry {
        std::vector<llama_token> tokens;
        std::vector<Segment> segments;
        std::uint64_t used = 0;
        bool live = false;
        bool leased = false;
        bool spine = false;
    };
    struct Match {
        int seq = -1;
        std::size_t length = 0;
    };
    [[nodiscard]] static std::size_t index(int seq) noexcept { return static_cast<std::size_t>(seq); }
    [[nodiscard]] Match find(const std::vector<llama_token>& tokens, std::size_t most, StateId base, StateId own) const;
    void drop(int seq);
    void give_back(int seq, bool keep);
    void drop_prefixes_of(int seq);
    static void cut_segments(Entry& entry, std::size_t length);

    KvMemory& memory_;
    std::vector<Entry> entries_;  // by sequence
    std::uint64_t clock_ = 0;
};

}  // namespace ltm
