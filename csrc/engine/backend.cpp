#include "engine/backend.h"

#include <ggml-backend.h>
#include <llama.h>

#include <algorithm>
#include <array>
#include <cstddef>
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

// Whose log it was before the scopes that are open now.
struct LogOwner {
    std::mutex mutex;
    int scopes = 0;
    ggml_log_callback callback = nullptr;  // null: ours
    void* data = nullptr;
};

LogOwner& log_owner() {
    static auto* owner = new LogOwner;  // leaked, as above
    return *owner;
}

bool log_is_ours(ggml_log_callback& callback, void*& data) {
    llama_log_get(&callback, &data);
    return callback == on_log;
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

#if defined(__x86_64__) || defined(_M_X64)
// Bytes that `function` writes of the struct that it returns. On these machines a struct of more than 16 bytes is
// returned through a pointer that stands before the first argument, so that it can be given room with a known filling.
template <typename Struct>
std::size_t size_there(Struct (*function)()) {
    static_assert(sizeof(Struct) > 16);
    using WithPointer = void* (*)(void*);
    const auto call = reinterpret_cast<WithPointer>(reinterpret_cast<void (*)()>(function));
    alignas(16) std::array<unsigned char, 4096> room;
    std::size_t written = 0;
    for (const unsigned char filling : std::array<unsigned char, 2>{0xA5, 0x5A}) {
        room.fill(filling);
        call(room.data());
        const auto last = std::find_if(room.rbegin(), room.rend(), [&](unsigned char byte) { return byte != filling; });
        written = std::max(written, static_cast<std::size_t>(room.rend() - last));
    }
    return (written + alignof(Struct) - 1) / alignof(Struct) * alignof(Struct);
}
#else
template <typename Struct>
std::size_t size_there(Struct (*)()) {
    return sizeof(Struct);
}
#endif

template <typename Struct>
std::string size_mismatch(const char* name, Struct (*function)()) {
    const std::size_t there = size_there(function);
    if (there == sizeof(Struct)) return {};
    return std::string(name) + " has " + std::to_string(there) + " bytes there and " + std::to_string(sizeof(Struct)) +
           " in the extension";
}

}  // namespace

std::string llama_mismatch() {
    const std::string version = llama_version();
    if (version != LTM_LLAMA_VERSION) {
        return "libllama is " + version + ", the extension was built for " LTM_LLAMA_VERSION;
    }
    std::string found = size_mismatch("llama_model_params", llama_model_default_params);
    if (found.empty()) found = size_mismatch("llama_context_params", llama_context_default_params);
    return found;
}

void load_backends(const std::string& folder) {
    take_log();  // it says what it loads
    if (ggml_backend_reg_count() == 0) ggml_backend_load_all_from_path(folder.c_str());
}

void ensure_backend() {
    static std::once_flag once;
    std::call_once(once, [] {
        take_log();
        llama_backend_init();
    });
}

void take_log() {
    LogOwner& owner = log_owner();
    const std::scoped_lock lock(owner.mutex);
    owner.callback = nullptr;
    llama_log_set(on_log, nullptr);
}

LogScope::LogScope() {
    LogOwner& owner = log_owner();
    const std::scoped_lock lock(owner.mutex);
    ++owner.scopes;
    ggml_log_callback callback = nullptr;
    void* data = nullptr;
    if (log_is_ours(callback, data)) return;
    owner.callback = callback;
    owner.data = data;
    llama_log_set(on_log, nullptr);
}

LogScope::~LogScope() {
    LogOwner& owner = log_owner();
    const std::scoped_lock lock(owner.mutex);
    if (--owner.scopes > 0 || owner.callback == nullptr) return;
    ggml_log_callback callback = nullptr;
    void* data = nullptr;
    // Who has taken it meanwhile keeps it.
    if (log_is_ours(callback, data)) llama_log_set(owner.callback, owner.data);
    owner.callback = nullptr;
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
