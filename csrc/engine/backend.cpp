#include "engine/backend.h"

#include <ggml-backend.h>
#include <llama.h>

#include <algorithm>
#include <deque>
#include <mutex>

namespace ltm {
namespace {

constexpr std::size_t kMaxQueued = 4096;  // lines kept for the reader
constexpr std::size_t kMaxError = 1024;   // bytes of error text kept to explain a refusal

struct LogState {
    std::mutex mutex;
    std::deque<LogRecord> queue;
    std::size_t dropped = 0;
    std::string error;
    int last_level = GGML_LOG_LEVEL_INFO;
};

LogState& log_state() {
    // Leaked on purpose: llama.cpp may log from static destructors of its own.
    static auto* state = new LogState;
    return *state;
}

void on_log(ggml_log_level level, const char* text, void*) {
    LogState& state = log_state();
    const std::scoped_lock lock(state.mutex);
    const bool continues = level == GGML_LOG_LEVEL_CONT;
    const int effective = continues ? state.last_level : static_cast<int>(level);
    state.last_level = effective;
    if (effective == GGML_LOG_LEVEL_ERROR && state.error.size() < kMaxError) state.error += text;
    if (continues && !state.queue.empty()) {
        state.queue.back().text += text;
        return;
    }
    if (state.queue.size() >= kMaxQueued) {
        state.queue.pop_front();
        ++state.dropped;
    }
    state.queue.push_back({effective, text});
}

const char* type_name(enum ggml_backend_dev_type type) {
    switch (type) {
        case GGML_BACKEND_DEVICE_TYPE_CPU:
            return "cpu";
        case GGML_BACKEND_DEVICE_TYPE_GPU:
            return "gpu";
        case GGML_BACKEND_DEVICE_TYPE_IGPU:
            return "igpu";
        default:
            return "accel";
    }
}

}  // namespace

void ensure_backend() {
    static std::once_flag once;
    std::call_once(once, [] {
        llama_log_set(on_log, nullptr);
        llama_backend_init();
    });
}

std::vector<LogRecord> drain_log() {
    LogState& state = log_state();
    const std::scoped_lock lock(state.mutex);
    std::vector<LogRecord> out(state.queue.begin(), state.queue.end());
    state.queue.clear();
    if (state.dropped > 0) {
        out.push_back({GGML_LOG_LEVEL_WARN, std::to_string(state.dropped) + " log lines were dropped"});
        state.dropped = 0;
    }
    return out;
}

std::vector<Device> list_devices() {
    ensure_backend();
    std::vector<Device> devices;
    for (std::size_t i = 0; i < ggml_backend_dev_count(); ++i) {
        ggml_backend_dev_t dev = ggml_backend_dev_get(i);
        std::size_t free = 0;
        std::size_t total = 0;
        ggml_backend_dev_memory(dev, &free, &total);
        devices.push_back({ggml_backend_dev_name(dev), ggml_backend_dev_description(dev),
                           type_name(ggml_backend_dev_type(dev)), free, total});
    }
    return devices;
}

std::string system_info() {
    ensure_backend();
    return llama_print_system_info();
}

std::string llama_build() { return llama_version(); }

bool supports_gpu_offload() {
    ensure_backend();
    return llama_supports_gpu_offload();
}

void clear_last_error() {
    LogState& state = log_state();
    const std::scoped_lock lock(state.mutex);
    state.error.clear();
}

std::string last_error() {
    LogState& state = log_state();
    const std::scoped_lock lock(state.mutex);
    // One line: the user sees it inside a sentence.
    std::string text = state.error;
    std::replace(text.begin(), text.end(), '\n', ' ');
    const auto end = text.find_last_not_of(" ");
    return end == std::string::npos ? std::string() : text.substr(0, end + 1);
}

}  // namespace ltm
