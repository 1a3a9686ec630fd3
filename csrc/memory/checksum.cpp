#include "memory/checksum.h"

#include <algorithm>
#include <bit>
#include <cstring>

namespace ltm::memory {
namespace {

constexpr std::uint64_t kPrime1 = 0x9E3779B185EBCA87U;
constexpr std::uint64_t kPrime2 = 0xC2B2AE3D27D4EB4FU;
constexpr std::uint64_t kPrime3 = 0x165667B19E3779F9U;
constexpr std::uint64_t kPrime4 = 0x85EBCA77C2B2AE63U;
constexpr std::uint64_t kPrime5 = 0x27D4EB2F165667C5U;

template <typename T>
std::uint64_t load(const unsigned char* p) noexcept {
    T value;
    std::memcpy(&value, p, sizeof value);
    return value;
}

std::uint64_t round(std::uint64_t lane, std::uint64_t input) noexcept {
    return std::rotl(lane + input * kPrime2, 31) * kPrime1;
}

}  // namespace

void Checksum::update(const void* data, std::size_t size) noexcept {
    const auto* p = static_cast<const unsigned char*>(data);
    const std::size_t held = size_ % 32;
    size_ += size;
    const auto stripe = [this](const unsigned char* s) {
        for (std::size_t i = 0; i < 4; ++i) lanes_[i] = round(lanes_[i], load<std::uint64_t>(s + 8 * i));
    };
    if (held != 0) {
        const std::size_t fill = std::min(size, 32 - held);
        std::memcpy(rest_.data() + held, p, fill);
        if (held + fill < 32) return;
        stripe(rest_.data());
        p += fill;
        size -= fill;
    }
    for (; size >= 32; p += 32, size -= 32) stripe(p);
    if (size != 0) std::memcpy(rest_.data(), p, size);
}

std::uint64_t Checksum::value() const noexcept {
    std::uint64_t hash = kPrime5;
    if (size_ >= 32) {
        hash = std::rotl(lanes_[0], 1) + std::rotl(lanes_[1], 7) + std::rotl(lanes_[2], 12) + std::rotl(lanes_[3], 18);
        for (const std::uint64_t lane : lanes_) hash = (hash ^ round(0, lane)) * kPrime1 + kPrime4;
    }
    hash += size_;
    const unsigned char* p = rest_.data();
    std::size_t left = size_ % 32;
    for (; left >= 8; p += 8, left -= 8) {
        hash = std::rotl(hash ^ round(0, load<std::uint64_t>(p)), 27) * kPrime1 + kPrime4;
    }
    if (left >= 4) {
        hash = std::rotl(hash ^ load<std::uint32_t>(p) * kPrime1, 23) * kPrime2 + kPrime3;
        p += 4;
        left -= 4;
    }
    for (; left != 0; ++p, --left) hash = std::rotl(hash ^ *p * kPrime5, 11) * kPrime1;
    hash = (hash ^ hash >> 33) * kPrime2;
    hash = (hash ^ hash >> 29) * kPrime3;
    return hash ^ hash >> 32;
}

}  // namespace ltm::memory
