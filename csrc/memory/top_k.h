// The k best of a stream of scored ids.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

namespace ltm::memory {

struct Hit {
    float score;
    std::int64_t id;

    // Better first; of equal scores the smaller id, so that every way of searching gives one order.
    friend bool operator<(const Hit& a, const Hit& b) noexcept {
        return a.score != b.score ? a.score > b.score : a.id < b.id;
    }
};

class TopK {
  public:
    explicit TopK(std::size_t k) : k_(k) {}

    // A score below this can't enter.
    [[nodiscard]] float floor() const noexcept {
        if (k_ == 0) return std::numeric_limits<float>::infinity();
        return hits_.size() < k_ ? -std::numeric_limits<float>::infinity() : hits_.front().score;
    }

    void push(const Hit& hit) {
        if (hits_.size() < k_) {
            hits_.push_back(hit);
            std::push_heap(hits_.begin(), hits_.end());
        } else if (k_ != 0 && hit < hits_.front()) {
            std::pop_heap(hits_.begin(), hits_.end());
            hits_.back() = hit;
            std::push_heap(hits_.begin(), hits_.end());
        }
    }

    [[nodiscard]] std::size_t size() const noexcept { return hits_.size(); }

    // Best first; the heap is used up.
    [[nodiscard]] std::vector<Hit> take() {
        std::sort_heap(hits_.begin(), hits_.end());
        return std::move(hits_);
    }

  private:
    std::size_t k_;
    std::vector<Hit> hits_;  // a heap whose front is the worst
};

}  // namespace ltm::memory
