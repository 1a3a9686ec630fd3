// Vectors in one block, searched by a full scan that is exact all the same.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <unordered_map>
#include <vector>

#include "memory/top_k.h"
#include "memory/uninitialized.h"

namespace ltm::memory {

// Unit vectors with ids. Beside each row stands a copy in eight bits with a bound on what it loses: a scan reads the
// copies, a quarter of the bytes, and computes the true product only for rows that the bound does not rule out (the
// scheme of filter and refine in VA-files, Weber, Schek and Blott 1998). No row of the true top k is missed.
class FlatRows {
  public:
    explicit FlatRows(std::size_t dim);

    [[nodiscard]] std::size_t size() const noexcept { return ids_.size(); }
    [[nodiscard]] std::optional<std::size_t> find(std::int64_t id) const;
    [[nodiscard]] std::int64_t id(std::size_t row) const noexcept { return ids_[row]; }
    [[nodiscard]] const float* vector(std::size_t row) const noexcept { return vectors_.data() + row * dim_; }

    [[nodiscard]] std::span<const std::int64_t> ids() const noexcept { return ids_; }
    // The copy in eight bits: vector = scale * code, nearly.
    [[nodiscard]] const std::int8_t* code(std::size_t row) const noexcept { return codes_.data() + row * dim_; }
    [[nodiscard]] float scale(std::size_t row) const noexcept { return scales_[row]; }

    void reserve(std::size_t rows);
    // Adds a row, or overwrites the one with this id. `unit` is float32[dim] of length 1.
    void set(std::int64_t id, const float* unit);
    // Removes a row; the last one takes its place.
    void erase(std::size_t row);
    // Gives back room that nothing uses.
    void shrink();

    // Makes room for rows whose vectors are yet to be written to `block`; the rows must be empty. False: an id occurs
    // twice or is negative.
    [[nodiscard]] bool prepare(std::vector<std::int64_t> ids);
    [[nodiscard]] float* block() noexcept { return vectors_.data(); }
    // Takes over rows [begin, end) of `block`. False: one isn't of length 1.
    [[nodiscard]] bool seal(std::size_t begin, std::size_t end) noexcept;

    // The best rows by filter and refine.
    void search(const float* query, std::size_t k, TopK& best) const;
    [[nodiscard]] std::size_t bytes() const noexcept;

  private:
    void encode_row(std::size_t row) noexcept;

    std::size_t dim_;
    std::vector<std::int64_t> ids_;
    std::vector<float, Uninitialized<float>> vectors_;            // [n, dim]
    std::vector<std::int8_t, Uninitialized<std::int8_t>> codes_;  // [n, dim]
    std::vector<float> scales_;                                   // [n]
    std::vector<float> losses_;                                   // [n]: length of what the codes leave out, rounded up
    std::unordered_map<std::int64_t, std::size_t> rows_;
};

}  // namespace ltm::memory
