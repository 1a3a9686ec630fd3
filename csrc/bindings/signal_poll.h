// Signals while native code runs.
#pragma once

#include <pybind11/pybind11.h>

#include <chrono>
#include <optional>

#include "bindings/gil.h"

namespace ltm {

// Lets Python handle signals while native code runs, and stops that where Python ends. Signals are asked for at most
// every 20 ms; an exception raised by a handler is kept and raised again once the native call has returned.
class SignalPoll {
  public:
    bool operator()() {
        if (WithoutGil::ending()) return true;
        const auto now = std::chrono::steady_clock::now();
        if (now - last_ < std::chrono::milliseconds(20)) return false;
        last_ = now;
        const pybind11::gil_scoped_acquire gil;
        if (PyErr_CheckSignals() == 0) return false;
        raised.emplace();  // takes the pending exception
        return true;
    }
    std::optional<pybind11::error_already_set> raised;

  private:
    std::chrono::steady_clock::time_point last_ = std::chrono::steady_clock::now();
};

}  // namespace ltm
