// A fast checksum for large files: XXH64 (Collet, xxHash specification 0.1.1).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace ltm::memory {

class Checksum {
  public:
    void update(const void* data, std::size_t size) noexcept;
    [[nodiscard]] std::uint64_t value() const noexcept;

  private:
    static constexpr std::uint64_t kPrime1 = 0x9E3779B185EBCA87U;
    static constexpr std::uint64_t kPrime2 = 0xC2B2AE3D27D4EB4FU;

    std::array<std::uint64_t, 4> lanes_{kPrime1 + kPrime2, kPrime2, 0, 0 - kPrime1};
    std::array<unsigned char, 32> rest_{};
    std::uint64_t size_ = 0;
};

}  // namespace ltm::memory
