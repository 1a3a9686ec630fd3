// Native calls without the GIL, and how they end when Python does.
//
// While Python ends, a thread that asks for the GIL is ended where it stands. Inside C++ that unwinds through frames
// that may not throw, and the whole process aborts. So the module's exit handler asks all calls to stop, and waits for
// them, before Python takes its threads down.
#pragma once

#include <pybind11/pybind11.h>

#include <atomic>
#include <chrono>
#include <thread>

#include "support/error.h"

namespace ltm {

class WithoutGil {
  public:
    // Throws Error(cancelled) once Python ends, but in the thread that ends it: other exit handlers may still save.
    WithoutGil() = default;

    // Whether Python ends; a call that takes long asks now and then, and stops.
    static bool ending() { return state().ending.load(std::memory_order_acquire); }

    // Lets no other thread begin a call, and waits for those that run; false if some still do after `most`. Needs the
    // GIL, and gives it away while it waits.
    static bool end(std::chrono::milliseconds most) {
        State& now = state();
        now.ender = std::this_thread::get_id();
        now.ending.store(true, std::memory_order_release);
        const pybind11::gil_scoped_release release;
        const auto until = std::chrono::steady_clock::now() + most;
        while (now.calls.load(std::memory_order_acquire) > 0) {
            if (std::chrono::steady_clock::now() > until) return false;
            std::this_thread::sleep_for(std::chrono::milliseconds(1));
        }
        return true;
    }

  private:
    struct State {
        std::atomic<int> calls{0};
        std::atomic<bool> ending{false};
        std::thread::id ender;
    };
    static State& state() {
        static State only;
        return only;
    }
    struct Counted {
        Counted() {
            if (ending() && state().ender != std::this_thread::get_id()) {
                throw Error(ErrorCode::cancelled, "Python is ending: nothing is computed any more");
            }
            state().calls.fetch_add(1, std::memory_order_acq_rel);
        }
        ~Counted() { state().calls.fetch_sub(1, std::memory_order_acq_rel); }
        Counted(const Counted&) = delete;
        Counted& operator=(const Counted&) = delete;
    };
    Counted counted_;  // counts until the GIL has been taken again
    pybind11::gil_scoped_release release_;
};

}  // namespace ltm
