#include "support/utf8.h"

#include <utility>

namespace ltm {
namespace {

// Number of bytes that a character with this first byte has; 1 for bytes that can't begin one.
int expected_length(unsigned char lead) noexcept {
    if (lead >= 0xC2 && lead <= 0xDF) return 2;
    if (lead >= 0xE0 && lead <= 0xEF) return 3;
    if (lead >= 0xF0 && lead <= 0xF4) return 4;
    return 1;
}

bool is_continuation(unsigned char byte) noexcept { return (byte & 0xC0) == 0x80; }

}  // namespace

std::size_t utf8_complete_prefix(std::string_view bytes) noexcept {
    const std::size_t size = bytes.size();
    for (std::size_t back = 1; back <= 3 && back <= size; ++back) {
        const auto byte = static_cast<unsigned char>(bytes[size - back]);
        if (is_continuation(byte)) continue;
        return expected_length(byte) > static_cast<int>(back) ? size - back : size;
    }
    return size;
}

std::string Utf8Stream::push(std::string_view bytes) {
    pending_.append(bytes);
    const std::size_t cut = utf8_complete_prefix(pending_);
    std::string ready = pending_.substr(0, cut);
    pending_.erase(0, cut);
    return ready;
}

std::string Utf8Stream::flush() { return std::exchange(pending_, {}); }

}  // namespace ltm
