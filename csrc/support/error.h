// The one error type of the native code. bindings/ maps codes to Python classes, in one place.
#pragma once

#include <stdexcept>
#include <string>

namespace ltm {

enum class ErrorCode { grammar, engine, context_full, cancelled, model, invalid_argument, memory, index_stale };

class Error : public std::runtime_error {
  public:
    Error(ErrorCode code, const std::string& message) : std::runtime_error(message), code_(code) {}
    [[nodiscard]] ErrorCode code() const noexcept { return code_; }

  private:
    ErrorCode code_;
};

}  // namespace ltm
