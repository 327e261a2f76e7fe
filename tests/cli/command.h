// Runs the command as a user does: a process of its own, with what it prints and how it ends.
#pragma once

#include <gtest/gtest.h>
#include <sys/types.h>

#include <filesystem>
#include <functional>
#include <map>
#include <string>
#include <vector>

namespace linnet::test {

using Arguments = std::vector<std::string>;

struct Result {
  int code = -1;   ///< exit code; -1 if a signal ended the process
  int signal = 0;  ///< that signal
  std::string out, err;
  size_t peak = 0;  ///< bytes that were in memory at most, here when it began or in the command
};

struct Surroundings {
  std::filesystem::path folder = {};    ///< to run in
  std::function<void()> in_child = {};  ///< called in the new process before it becomes the command
  std::map<std::string, std::string> environment = {};  ///< variables that it sees beside the tests' own
  Arguments launcher = {};  ///< a program that starts the command, and its arguments
};

/// A running command.
class Process {
 public:
  explicit Process(const Arguments& arguments, const Surroundings& surroundings = {});
  ~Process();
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;

  pid_t id() const { return pid_; }
  void send(int signal) const;
  /// Waits until standard output and standard error together contain text, or both are closed.
  void wait_for(const std::string& text);
  Result wait();
  /// Reads no more of what it prints, as if whoever did had ended.
  void stop_listening();

 private:
  bool read_some();

  pid_t pid_ = -1;
  int out_ = -1, err_ = -1;
  Result result_;
  bool ended_ = false;
};

Result run(const Arguments& arguments, const Surroundings& surroundings = {});

/// Success: exit code 0 and nothing on standard error.
testing::AssertionResult succeeded(const Result& result);
/// Failure with that exit code and exactly one line on standard error, "linnet: ...", which contains text;
/// errors of the command line may add the line "Try ...".
testing::AssertionResult failed(const Result& result, int code, const std::string& text = "");

/// All files and folders below a folder, as relative paths in order.
std::vector<std::string> listing(const std::filesystem::path& folder);
std::string contents(const std::filesystem::path& file);
std::vector<std::string> lines(const std::string& text);

}  // namespace linnet::test
