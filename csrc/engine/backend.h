// llama.cpp's process-wide state: initialisation, log, devices.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace ltm {

struct LogRecord {
    int level;  // ggml_log_level: 1 debug … 4 error, as llama.cpp gave it
    std::string text;
};

struct Device {
    std::string name;         // what --device takes, such as CUDA0
    std::string description;  // the vendor's words
    std::string type;         // cpu | gpu | igpu | accel
    std::uint64_t memory_free;
    std::uint64_t memory_total;
};

// What is wrong with the loaded libllama for this extension, in a few words; empty where it is the one that the
// extension was built for. Compares its version and, where the calling convention tells, the sizes of its structs.
[[nodiscard]] std::string llama_mismatch();

// Loads back ends that stand in files of their own in `folder` (the CPU's in the variant for this machine), if libllama
// brings none itself. llama.cpp would look for them beside the program and in the current folder, where anyone may have
// put them. To be called before everything else; without such files it does nothing.
void load_backends(const std::string& folder);

// Initialises llama.cpp once and takes over its log. Idempotent and thread-safe; every other call below implies it.
void ensure_backend();

// Takes over the log, as `ensure_backend` did, from whoever has it now.
void take_log();

// Takes the log for as long as it lives, then hands it back. Another user of libllama in this process may have set a
// function in Python: while we compute it would be called for every line, and an exception that is raised in it, such
// as Ctrl-C's, would be lost. Scopes of several threads overlap; the last one to end hands the log back.
class LogScope {
  public:
    LogScope();
    ~LogScope();
    LogScope(const LogScope&) = delete;
    LogScope& operator=(const LogScope&) = delete;
};

// Takes the log lines that have gathered since the last call. llama.cpp writes from any thread and must not wait for
// the reader, so lines go through a bounded queue; the oldest are dropped (and counted in a line of their own).
[[nodiscard]] std::vector<LogRecord> drain_log();

[[nodiscard]] std::vector<Device> list_devices();
[[nodiscard]] std::string system_info();
[[nodiscard]] std::string llama_build();
[[nodiscard]] bool supports_gpu_offload();

// Text of the last error lines that llama.cpp logged since `clear_last_error`, in a LogScope; says why it refused.
void clear_last_error();
[[nodiscard]] std::string last_error();

}  // namespace ltm
