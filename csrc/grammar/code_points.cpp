#include "grammar/code_points.h"

#include <algorithm>

namespace ltm::grammar {

CodePointSet::CodePointSet(std::vector<Range> ranges) {
    std::vector<Range> parts;
    parts.reserve(ranges.size() + 1);
    for (auto [low, high] : ranges) {
        low = std::max<std::uint32_t>(low, 1);
        high = std::min(high, kLastCodePoint);
        if (low <= high && low < kFirstSurrogate) parts.emplace_back(low, std::min(high, kFirstSurrogate - 1));
        if (high > kLastSurrogate && low <= high) parts.emplace_back(std::max(low, kLastSurrogate + 1), high);
    }
    std::sort(parts.begin(), parts.end());
    for (const Range& part : parts) {
        if (!ranges_.empty() && part.first <= ranges_.back().second + 1) {
            ranges_.back().second = std::max(ranges_.back().second, part.second);
        } else {
            ranges_.push_back(part);
        }
    }
}

std::uint32_t CodePointSet::first_in(std::uint32_t low, std::uint32_t high) const noexcept {
    const auto it = std::lower_bound(ranges_.begin(), ranges_.end(), low,
                                     [](const Range& range, std::uint32_t value) { return range.second < value; });
    if (it == ranges_.end()) return 0;
    const std::uint32_t first = std::max(low, it->first);
    return first <= high ? first : 0;
}

bool CodePointSet::contains(std::uint32_t code_point) const noexcept {
    return code_point != 0 && first_in(code_point, code_point) == code_point;
}

bool CodePointSet::covers(std::uint32_t low, std::uint32_t high) const noexcept {
    const auto it = std::lower_bound(ranges_.begin(), ranges_.end(), low,
                                     [](const Range& range, std::uint32_t value) { return range.second < value; });
    if (it == ranges_.end() || it->first > low) return false;
    if (it->second >= high) return true;
    // The one gap that a complete set has.
    if (it->second != kFirstSurrogate - 1) return false;
    if (high <= kLastSurrogate) return true;
    const auto next = it + 1;
    return next != ranges_.end() && next->first == kLastSurrogate + 1 && next->second >= high;
}

CodePointSet CodePointSet::complement() const {
    std::vector<Range> parts;
    std::uint32_t from = 1;
    for (const auto& [low, high] : ranges_) {
        if (low > from) parts.emplace_back(from, low - 1);
        from = high + 1;
    }
    if (from <= kLastCodePoint) parts.emplace_back(from, kLastCodePoint);
    return CodePointSet(std::move(parts));
}

CodePointSet CodePointSet::united(const CodePointSet& other) const {
    std::vector<Range> parts = ranges_;
    parts.insert(parts.end(), other.ranges_.begin(), other.ranges_.end());
    return CodePointSet(std::move(parts));
}

void append_utf8(std::string& text, std::uint32_t cp) {
    const auto push = [&text](std::uint32_t byte) { text.push_back(static_cast<char>(byte)); };
    if (cp < 0x80) {
        push(cp);
    } else if (cp < 0x800) {
        push(0xC0U | (cp >> 6U));
        push(0x80U | (cp & 0x3FU));
    } else if (cp < 0x10000) {
        push(0xE0U | (cp >> 12U));
        push(0x80U | ((cp >> 6U) & 0x3FU));
        push(0x80U | (cp & 0x3FU));
    } else {
        push(0xF0U | (cp >> 18U));
        push(0x80U | ((cp >> 12U) & 0x3FU));
        push(0x80U | ((cp >> 6U) & 0x3FU));
        push(0x80U | (cp & 0x3FU));
    }
}

std::uint32_t PartialChar::low() const noexcept {
    const std::uint32_t least = length() == 2 ? 0x80 : length() == 3 ? 0x800 : 0x10000;
    return std::max(value() << (6U * static_cast<unsigned>(missing())), least);
}

std::uint32_t PartialChar::high() const noexcept {
    const unsigned shift = 6U * static_cast<unsigned>(missing());
    return std::min((value() << shift) | ((1U << shift) - 1U), kLastCodePoint);
}

bool PartialChar::hopeless() const noexcept {
    const std::uint32_t from = low();
    const std::uint32_t to = high();
    return from > to || (from >= kFirstSurrogate && to <= kLastSurrogate);
}

PartialChar::Status PartialChar::push(std::uint8_t byte, std::uint32_t& code_point) noexcept {
    if (none()) {
        if (byte < 0x80) {
            code_point = byte;
            return Status::complete;
        }
        const unsigned length = byte < 0xC2 ? 0 : byte < 0xE0 ? 2 : byte < 0xF0 ? 3 : byte < 0xF5 ? 4 : 0;
        if (length == 0) return Status::bad;
        bits_ = (static_cast<std::uint32_t>(byte & (0x7FU >> length)) << 5U) | (length << 2U) | (length - 1U);
        return Status::partial;
    }
    if ((byte & 0xC0U) != 0x80U) return Status::bad;
    const std::uint32_t next = (value() << 6U) | (byte & 0x3FU);
    bits_ = (next << 5U) | (static_cast<std::uint32_t>(length()) << 2U) | static_cast<std::uint32_t>(missing() - 1);
    if (missing() == 0) {
        code_point = next;
        const bool surrogate = next >= kFirstSurrogate && next <= kLastSurrogate;
        const bool overlong = utf8_length(next) != length();
        bits_ = 0;
        return surrogate || overlong || next > kLastCodePoint ? Status::bad : Status::complete;
    }
    return hopeless() ? Status::bad : Status::partial;
}

}  // namespace ltm::grammar
