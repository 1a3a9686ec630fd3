// Sets of code points and the decoding of UTF-8 one byte at a time.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace ltm::grammar {

constexpr std::uint32_t kLastCodePoint = 0x10FFFF;
constexpr std::uint32_t kFirstSurrogate = 0xD800;
constexpr std::uint32_t kLastSurrogate = 0xDFFF;

// Sorted, disjoint, non-adjacent inclusive ranges. U+0000 and surrogates are never members: no text holds them.
class CodePointSet {
  public:
    using Range = std::pair<std::uint32_t, std::uint32_t>;

    CodePointSet() = default;
    explicit CodePointSet(std::vector<Range> ranges);

    [[nodiscard]] const std::vector<Range>& ranges() const noexcept { return ranges_; }
    [[nodiscard]] bool empty() const noexcept { return ranges_.empty(); }
    [[nodiscard]] bool contains(std::uint32_t code_point) const noexcept;
    // True if every member of [low, high] is in the set.
    [[nodiscard]] bool covers(std::uint32_t low, std::uint32_t high) const noexcept;
    // The least member in [low, high], or 0.
    [[nodiscard]] std::uint32_t first_in(std::uint32_t low, std::uint32_t high) const noexcept;
    [[nodiscard]] CodePointSet complement() const;
    [[nodiscard]] CodePointSet united(const CodePointSet& other) const;
    [[nodiscard]] bool operator==(const CodePointSet& other) const noexcept = default;

  private:
    std::vector<Range> ranges_;
};

void append_utf8(std::string& text, std::uint32_t code_point);
[[nodiscard]] inline int utf8_length(std::uint32_t code_point) noexcept {
    return code_point < 0x80 ? 1 : code_point < 0x800 ? 2 : code_point < 0x10000 ? 3 : 4;
}

// The beginning of a character: value of the bits read, bytes missing, bytes in all. Packed to 32 bits; 0 is "at a
// character's boundary". Overlong forms, surrogates and code points past U+10FFFF are refused at the first byte that
// makes them certain.
class PartialChar {
  public:
    PartialChar() = default;
    [[nodiscard]] bool none() const noexcept { return bits_ == 0; }
    [[nodiscard]] std::uint32_t bits() const noexcept { return bits_; }
    [[nodiscard]] int missing() const noexcept { return static_cast<int>(bits_ & 3U); }
    [[nodiscard]] int length() const noexcept { return static_cast<int>((bits_ >> 2U) & 7U); }
    // The code points that it can still become. Call only if not none().
    [[nodiscard]] std::uint32_t low() const noexcept;
    [[nodiscard]] std::uint32_t high() const noexcept;

    enum class Status : std::uint8_t { bad, partial, complete };
    // Takes one byte; on `complete`, code_point is set and *this is at a boundary again.
    Status push(std::uint8_t byte, std::uint32_t& code_point) noexcept;

    [[nodiscard]] bool operator==(const PartialChar&) const noexcept = default;

  private:
    [[nodiscard]] std::uint32_t value() const noexcept { return bits_ >> 5U; }
    [[nodiscard]] bool hopeless() const noexcept;
    std::uint32_t bits_ = 0;
};

}  // namespace ltm::grammar
