#include "train/run_folder.h"

#include <toml++/toml.h>

#include <nlohmann/json.hpp>

#include <cstdint>
#include <fstream>
#include <optional>
#include <sstream>

#include "io/file.h"
#include "io/tokenizer.h"
#include "train/checkpoint.h"

namespace linnet {
namespace {

namespace fs = std::filesystem;

// The first line of a run's config.toml, by which it is told from one that a person wrote.
constexpr std::string_view config_mark =
    "# The configuration of a run as it was used, written by linnet train.\n";

bool was_written_by_a_run(const fs::path& config) {
  std::ifstream file(config, std::ios::binary);
  std::string beginning(config_mark.size(), '\0');
  file.read(beginning.data(), static_cast<std::streamsize>(beginning.size()));
  return file.good() && beginning == config_mark;
}

void check_new_run(const TrainConfig& config) {
  const fs::path dir = config.output.dir;
  std::error_code ignored;
  if (is_there(dir / checkpoint_name))
    throw UsageError(
        fmt::format("{} holds a run already; go on with --resume, or choose another output.dir", dir.string()));
  const auto refuse = [&](const char* name, const char* what) {
    throw UsageError(fmt::format("{} {}, and this run would write over it; choose another output.dir",
                                 (dir / name).string(), what));
  };
  if (is_there(dir / "model.safetensors")) refuse("model.safetensors", "is there already");
  if (!config.file.empty() && fs::equivalent(config.file, dir / "config.toml", ignored))
    refuse("config.toml", "is the configuration that was given");
  if (was_written_by_a_run(dir / "config.toml")) return;
  std::vector<const char*> names = {"config.toml", "metrics.jsonl"};
  if (config.output.sample_every > 0) names.push_back("samples");
  if (config.trains_text_encoder()) names.insert(names.end(), {"tokenizer", "text_encoder"});
  for (const char* name : names)
    if (is_there(dir / name)) refuse(name, "was not written by a run");
}

// The optimiser of a run, said or not, as the configuration that its checkpoint keeps says.
std::string optimizer_of(const std::string& toml) {
  return toml::parse(toml)["train"]["optimizer"].value_or(OptimizerConfig().optimizer);
}

void check_resumed_run(const TrainConfig& config) {
  const std::string& dir = config.output.dir;
  const fs::path checkpoint = fs::path(dir) / checkpoint_name;
  check_told(checkpoint);
  if (!is_there(checkpoint)) throw UsageError(fmt::format("{}: there is no checkpoint to resume from", dir));
  const std::string before = open_checkpoint(checkpoint).toml;
  const std::string teacher = teacher_of(before);  // which refuses what is no TOML
  const std::string optimizer = optimizer_of(before);
  if (optimizer != config.train.optimizer)
    throw UsageError(
        fmt::format("{}: train.optimizer was \"{}\", is now \"{}\"; what one optimiser keeps of the steps "
                    "means nothing to another",
                    dir, optimizer, config.train.optimizer));
  if (!teacher.empty() && config.distil.teacher.empty())
    throw UsageError(
        fmt::format("{0}: this run learns from a teacher; go on with --teacher {1}, or begin another run "
                    "without one by --init {0}/model.safetensors",
                    dir, teacher));
}

// The step of a line of metrics; none if it was damaged.
std::optional<int64_t> step_in(const std::string& line) {
  const auto json = nlohmann::json::parse(line, nullptr, false);
  if (!json.is_object() || !json.contains("step") || !json["step"].is_number_integer()) return std::nullopt;
  const auto step = json["step"].get<int64_t>();
  return step >= 0 ? std::optional(step) : std::nullopt;
}

// Keeps the lines up to the checkpoint: what an interrupted run logged beyond it, or before there was one, will
// be logged again. Throws Error, and leaves them, if those that are there cannot be read.
void keep_metrics_until(const fs::path& path, int64_t step) {
  std::istringstream in(is_there(path) ? read_text_file(path, SIZE_MAX) : std::string());
  std::ostringstream kept;
  for (std::string line; std::getline(in, line);) {
    const auto logged = step_in(line);
    if (logged && *logged <= step) kept << line << '\n';
  }
  write_text_file(path, kept.str());
}

}  // namespace

RunFolder::RunFolder(const TrainConfig& config, bool resume) : config_(config), resume_(resume) {
  check_contents();
  std::error_code ignored;
  if (fs::is_directory(config.output.dir, ignored)) lock();
}

void RunFolder::check_contents() const { resume_ ? check_resumed_run(config_) : check_new_run(config_); }

void RunFolder::lock() {
  lock_ = FileLock::take(fs::path(config_.output.dir) / "run.lock");
  if (!lock_) throw UsageError(fmt::format("another run is working in {}", config_.output.dir));
  check_contents();  // another may have ended since
}

void RunFolder::begin(int64_t step) {
  const fs::path dir = config_.output.dir;
  make_folder(dir);
  if (!lock_) lock();
  write_text_file(dir / "config.toml", std::string(config_mark) + config_.toml + "\n");
  if (config_.trains_text_encoder()) {
    make_folder(dir / "tokenizer");
    write_text_file(dir / "tokenizer" / "spiece.model", read_tokenizer_file(config_.text.tokenizer));
  }
  keep_metrics_until(dir / "metrics.jsonl", step);
}

}  // namespace linnet
