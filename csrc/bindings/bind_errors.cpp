// The one place where native error codes become Python classes.
#include <pybind11/pybind11.h>

#include <stdexcept>
#include <string>

#include "bindings/bindings.h"
#include "support/error.h"

namespace py = pybind11;

namespace ltm {
namespace {

const char* class_name(ErrorCode code) {
    switch (code) {
        case ErrorCode::grammar:
            return "GrammarError";
        case ErrorCode::engine:
            return "EngineError";
        case ErrorCode::context_full:
            return "ContextFull";
        case ErrorCode::cancelled:
            return "Cancelled";
        case ErrorCode::model:
            return "ModelError";
        case ErrorCode::invalid_argument:
            return "InputError";
        case ErrorCode::memory:
            return "MemoryStoreError";
        case ErrorCode::index_stale:
            return "IndexStale";
    }
    return "LtmError";
}

}  // namespace

void register_errors(py::module_&) {
    py::register_exception_translator([](std::exception_ptr pointer) {
        try {
            if (pointer) std::rethrow_exception(pointer);
        } catch (const Error& error) {
            const py::object type = py::module_::import("ltm_edge.errors").attr(class_name(error.code()));
            // A reason may quote bytes of a damaged file: keep the message readable whatever they are.
            const std::string text = error.what();
            const py::object message = py::reinterpret_steal<py::object>(
                PyUnicode_DecodeUTF8(text.data(), static_cast<py::ssize_t>(text.size()), "replace"));
            PyErr_SetObject(type.ptr(), message.ptr());
        } catch (const std::out_of_range& error) {
            // llama.cpp looks up what a vocabulary should have, such as tokens of single bytes, without a check. An
            // IndexError would look like one of the caller's own.
            const py::object type = py::module_::import("ltm_edge.errors").attr("EngineError");
            const std::string text = std::string("llama.cpp misses something in this model's vocabulary (") +
                                     error.what() + "); convert the model again, or take another file of it";
            PyErr_SetString(type.ptr(), text.c_str());
        }
    });
}

}  // namespace ltm
