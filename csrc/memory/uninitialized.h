// Memory that is about to be overwritten needs no zeros.
#pragma once

#include <memory>
#include <utility>

namespace ltm::memory {

// An allocator whose `resize` leaves new elements as they come; over a gigabyte read from a file that is half a second.
template <typename T>
class Uninitialized : public std::allocator<T> {
  public:
    template <typename U>
    struct rebind {
        using other = Uninitialized<U>;
    };

    using std::allocator<T>::allocator;

    template <typename U>
    void construct(U* place) noexcept {
        ::new (static_cast<void*>(place)) U;
    }
    template <typename U, typename... Args>
    void construct(U* place, Args&&... args) {
        ::new (static_cast<void*>(place)) U(std::forward<Args>(args)...);
    }
};

}  // namespace ltm::memory
