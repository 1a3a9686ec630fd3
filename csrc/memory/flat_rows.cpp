#include "memory/flat_rows.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "memory/kernels.h"

namespace ltm::memory {
namespace {

constexpr float kCodeMax = 127.0F;
// Covers the rounding of the float32 arithmetic in the bounds; scores are at most 1.
constexpr float kRounding = 4e-6F;
// How far the square of a unit vector's length may be from 1.
constexpr float kUnit = 1e-2F;

}  // namespace

FlatRows::FlatRows(std::size_t dim) : dim_(dim) {}

std::optional<std::size_t> FlatRows::find(std::int64_t id) const {
    const auto it = rows_.find(id);
    if (it == rows_.end()) return std::nullopt;
    return it->second;
}

void FlatRows::reserve(std::size_t rows) {
    if (rows <= ids_.capacity()) return;
    rows = std::max(rows, ids_.capacity() + ids_.capacity() / 2);
    ids_.reserve(rows);
    vectors_.reserve(rows * dim_);
    codes_.reserve(rows * dim_);
    scales_.reserve(rows);
    losses_.reserve(rows);
    rows_.reserve(rows);
}

void FlatRows::set(std::int64_t id, const float* unit) {
    const auto it = rows_.find(id);
    if (it != rows_.end()) {
        std::copy_n(unit, dim_, vectors_.data() + it->second * dim_);
        encode_row(it->second);
        return;
    }
    const std::size_t row = size();
    reserve(row + 1);  // first all that can fail
    rows_.emplace(id, row);
    ids_.push_back(id);
    vectors_.insert(vectors_.end(), unit, unit + dim_);
    codes_.resize(codes_.size() + dim_);
    scales_.push_back(0.0F);
    losses_.push_back(0.0F);
    encode_row(row);
}

void FlatRows::erase(std::size_t row) {
    const std::size_t last = size() - 1;
    rows_.erase(ids_[row]);
    if (row != last) {
        ids_[row] = ids_[last];
        rows_[ids_[row]] = row;
        std::copy_n(vectors_.data() + last * dim_, dim_, vectors_.data() + row * dim_);
        std::copy_n(codes_.data() + last * dim_, dim_, codes_.data() + row * dim_);
        scales_[row] = scales_[last];
        losses_[row] = losses_[last];
    }
    ids_.pop_back();
    vectors_.resize(last * dim_);
    codes_.resize(last * dim_);
    scales_.pop_back();
    losses_.pop_back();
}

void FlatRows::shrink() {
    ids_.shrink_to_fit();
    vectors_.shrink_to_fit();
    codes_.shrink_to_fit();
    scales_.shrink_to_fit();
    losses_.shrink_to_fit();
    rows_.rehash(0);
}

void FlatRows::encode_row(std::size_t row) noexcept {
    const Encoding made = encode(vector(row), dim_, codes_.data() + row * dim_);
    scales_[row] = made.scale;
    losses_[row] = made.loss;
}

bool FlatRows::prepare(std::vector<std::int64_t> ids) {
    ids_ = std::move(ids);
    rows_.reserve(ids_.size());
    for (std::size_t row = 0; row < ids_.size(); ++row) {
        if (ids_[row] < 0 || !rows_.emplace(ids_[row], row).second) return false;
    }
    vectors_.resize(ids_.size() * dim_);
    codes_.resize(ids_.size() * dim_);
    scales_.resize(ids_.size());
    losses_.resize(ids_.size());
    return true;
}

bool FlatRows::seal(std::size_t begin, std::size_t end) noexcept {
    for (std::size_t row = begin; row < end; ++row) {
        const Encoding made = encode(vector(row), dim_, codes_.data() + row * dim_);
        if (!(std::fabs(made.square - 1.0F) < kUnit)) return false;
        scales_[row] = made.scale;
        losses_[row] = made.loss;
    }
    return true;
}

void FlatRows::search(const float* query, std::size_t k, TopK& best) const {
    const std::size_t n = size();
    if (n == 0 || k == 0) return;
    if (k >= n) {
        for (std::size_t row = 0; row < n; ++row) best.push({dot(query, vector(row), dim_), ids_[row]});
        return;
    }
    // The query in sixteen bits, or as many as keep dim * |query| * 127 within 32.
    const double limit = std::min(32767.0, std::floor(static_cast<double>(std::numeric_limits<std::int32_t>::max()) /
                                                      (static_cast<double>(kCodeMax) * static_cast<double>(dim_))));
    float largest = 0.0F;
    for (std::size_t i = 0; i < dim_; ++i) largest = std::max(largest, std::fabs(query[i]));
    const double step = static_cast<double>(largest) / limit;
    thread_local std::vector<std::int16_t> coarse;
    coarse.resize(dim_);
    double rest = 0.0;
    for (std::size_t i = 0; i < dim_; ++i) {
        const double rounded = std::clamp(std::nearbyint(static_cast<double>(query[i]) / step), -limit, limit);
        coarse[i] = static_cast<std::int16_t>(rounded);
        const double left = static_cast<double>(query[i]) - step * rounded;
        rest += left * left;
    }
    // q.v - (step * coarse).(scale * code) = q.loss + left.(scale * code), and lengths bound both products.
    const float query_loss = static_cast<float>(std::sqrt(rest)) * 1.02F;
    const float query_length = std::sqrt(dot(query, query, dim_)) + kRounding;

    thread_local std::vector<std::int32_t> products;
    thread_local std::vector<float> upper;
    products.resize(n);
    upper.resize(n);
    scan_codes(coarse.data(), codes_.data(), n, dim_, products.data());
    const float unit = static_cast<float>(step);
    TopK certain(k);  // the k largest lower bounds: whatever is below the smallest of them is out
    for (std::size_t row = 0; row < n; ++row) {
        const float near = static_cast<float>(products[row]) * unit * scales_[row];
        const float bound = query_length * losses_[row] + query_loss * (1.0F + losses_[row]) + kRounding;
        upper[row] = near + bound;
        if (near - bound > certain.floor()) certain.push({near - bound, 0});
    }
    const float floor = certain.floor();
    for (std::size_t row = 0; row < n; ++row) {
        if (upper[row] >= floor) best.push({dot(query, vector(row), dim_), ids_[row]});
    }
}

std::size_t FlatRows::bytes() const noexcept {
    return vectors_.capacity() * sizeof(float) + codes_.capacity() +
           ids_.capacity() * (sizeof(std::int64_t) + 2 * sizeof(float)) +
           rows_.size() * (sizeof(std::pair<std::int64_t, std::size_t>) + 2 * sizeof(void*)) +
           rows_.bucket_count() * sizeof(void*);
}

}  // namespace ltm::memory
