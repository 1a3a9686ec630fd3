// Tokens and text between Python and native code.
#pragma once

#include <llama.h>
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <string_view>
#include <vector>

#include "support/error.h"

namespace ltm {

using Tokens = pybind11::array_t<llama_token, pybind11::array::c_style | pybind11::array::forcecast>;

inline Tokens to_array(const std::vector<llama_token>& tokens) {
    return Tokens(static_cast<pybind11::ssize_t>(tokens.size()), tokens.data());
}

inline std::vector<llama_token> from_array(const Tokens& array) {
    if (array.ndim() != 1) throw Error(ErrorCode::invalid_argument, "tokens: expected a one-dimensional int32 array");
    return {array.data(), array.data() + array.size()};
}

inline pybind11::str to_str(std::string_view bytes) {
    PyObject* text = PyUnicode_DecodeUTF8(bytes.data(), static_cast<pybind11::ssize_t>(bytes.size()), "replace");
    if (text == nullptr) throw pybind11::error_already_set();
    return pybind11::reinterpret_steal<pybind11::str>(text);
}

}  // namespace ltm
