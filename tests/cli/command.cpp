#include "cli/command.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <fstream>
#include <sstream>

namespace linnet::test {
namespace {

void must(bool condition, const char* what) {
  if (!condition) throw std::runtime_error(what);
}

// Appends what there is; closes the descriptor at its end.
void drain(int& descriptor, std::string& text) {
  char block[1 << 14];
  const ssize_t count = ::read(descriptor, block, sizeof block);
  if (count > 0) {
    text.append(block, static_cast<size_t>(count));
  } else if (count == 0 || errno != EINTR) {
    ::close(descriptor);
    descriptor = -1;
  }
}

[[noreturn]] void become(const Arguments& arguments, const Surroundings& surroundings) {
  std::vector<std::string> all = surroundings.launcher;
  all.emplace_back(LINNET_COMMAND);
  all.insert(all.end(), arguments.begin(), arguments.end());
  std::vector<char*> pointers;
  for (std::string& argument : all) pointers.push_back(argument.data());
  pointers.push_back(nullptr);
  std::signal(SIGINT, SIG_DFL);  // which is ignored in what a shell runs in its background
  ::setenv("OMP_NUM_THREADS", "2", 1);
  ::setenv("OMP_WAIT_POLICY", "passive", 1);
  for (const auto& [name, value] : surroundings.environment) ::setenv(name.c_str(), value.c_str(), 1);
  if (!surroundings.folder.empty() && ::chdir(surroundings.folder.c_str()) != 0) ::_exit(126);
  if (surroundings.in_child) surroundings.in_child();
  ::execvp(pointers[0], pointers.data());
  ::_exit(127);
}

}  // namespace

Process::Process(const Arguments& arguments, const Surroundings& surroundings) {
  int out[2], err[2];
  must(::pipe2(out, O_CLOEXEC) == 0 && ::pipe2(err, O_CLOEXEC) == 0, "no pipe");
  pid_ = ::fork();
  must(pid_ >= 0, "no process");
  if (pid_ == 0) {
    const int nothing = ::open("/dev/null", O_RDONLY);
    ::dup2(nothing, STDIN_FILENO);
    ::dup2(out[1], STDOUT_FILENO);
    ::dup2(err[1], STDERR_FILENO);
    become(arguments, surroundings);
  }
  ::close(out[1]);
  ::close(err[1]);
  out_ = out[0];
  err_ = err[0];
}

Process::~Process() {
  if (!ended_) {
    send(SIGKILL);
    wait();
  }
}

void Process::send(int signal) const { ::kill(pid_, signal); }

bool Process::read_some() {
  if (out_ < 0 && err_ < 0) return false;
  pollfd ends[2] = {{out_, POLLIN, 0}, {err_, POLLIN, 0}};  // poll skips negative descriptors
  if (::poll(ends, 2, -1) < 0) return true;
  if (ends[0].revents != 0) drain(out_, result_.out);
  if (ends[1].revents != 0) drain(err_, result_.err);
  return true;
}

void Process::wait_for(const std::string& text) {
  const auto seen = [&] {
    return result_.out.find(text) != std::string::npos || result_.err.find(text) != std::string::npos;
  };
  while (!seen() && read_some()) {
  }
}

void Process::stop_listening() {
  for (int* end : {&out_, &err_}) {
    if (*end >= 0) ::close(*end);
    *end = -1;
  }
}

Result Process::wait() {
  while (read_some()) {
  }
  int status = 0;
  struct rusage used {};
  while (!ended_ && ::wait4(pid_, &status, 0, &used) < 0 && errno == EINTR) {
  }
  if (!ended_) result_.peak = static_cast<size_t>(used.ru_maxrss) * 1024;
  ended_ = true;
  if (WIFEXITED(status)) result_.code = WEXITSTATUS(status);
  if (WIFSIGNALED(status)) result_.signal = WTERMSIG(status);
  return result_;
}

Result run(const Arguments& arguments, const Surroundings& surroundings) {
  return Process(arguments, surroundings).wait();
}

namespace {

std::string described(const Result& r) {
  return fmt::format("exit code {}, signal {}\nout: {}\nerr: {}", r.code, r.signal, r.out, r.err);
}

}  // namespace

testing::AssertionResult succeeded(const Result& result) {
  if (result.code == 0 && result.err.empty()) return testing::AssertionSuccess();
  return testing::AssertionFailure() << described(result);
}

testing::AssertionResult failed(const Result& result, int code, const std::string& text) {
  const std::vector<std::string> all = lines(result.err);
  const bool sentence = !all.empty() && all[0].starts_with("linnet: ") && all[0].size() > 12;
  const bool alone = all.size() == 1 || (code == 2 && all.size() == 2 && all[1].starts_with("Try \"linnet"));
  if (result.code == code && sentence && alone && all[0].find(text) != std::string::npos)
    return testing::AssertionSuccess();
  return testing::AssertionFailure() << "expected exit code " << code << " and one line with \"" << text
                                     << "\"; " << described(result);
}

std::vector<std::string> listing(const std::filesystem::path& folder) {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(folder))
    names.push_back(std::filesystem::relative(entry.path(), folder).string());
  std::ranges::sort(names);
  return names;
}

std::string contents(const std::filesystem::path& file) {
  std::ifstream in(file, std::ios::binary);
  must(in.good(), "no such file");
  std::ostringstream out;
  out << in.rdbuf();
  return out.str();
}

std::vector<std::string> lines(const std::string& text) {
  std::vector<std::string> result;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) result.push_back(line);
  return result;
}

}  // namespace linnet::test
