// linnet: the command.
#include <fmt/format.h>
#include <omp.h>
#include <sys/auxv.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <csignal>
#include <cstdlib>
#include <iostream>

#include "core/error.h"
#include "core/parallel.h"
#include "core/team.h"
#include "help.h"
#include "interrupt.h"
#include "lost_pages.h"
#include "terminal.h"
#include "verbs.h"
#include "wrong_usage.h"

namespace {

int failed(const char* what, int code) {
  linnet::app::tell_failure(what);
  return code;
}

// The exit code, unless what was printed has not arrived.
int ended(int code) {
  std::cout.flush();
  const bool arrived = std::cout.good() && std::fflush(stdout) == 0 && std::ferror(stdout) == 0;
  return arrived ? code : failed("cannot write to the standard output", 1);
}

// GCC's OpenMP lets threads that wait for each other spin for milliseconds, in which they keep the processor
// from the very thread that they wait for as soon as anything else runs beside them: work is then 10 to 60
// times slower, where a shorter while costs a few hundredths of a small model's speed on a machine that is
// idle. How long is read from the environment when the program is loaded, and so it begins once more with that
// said. Not where threads are bound to processors: these are for them alone then, and the first thread, bound
// already, would leave its successor none but its own.
void wait_with_little_spinning(char** argv) {
  constexpr const char* spin_count = "GOMP_SPINCOUNT";
  if (std::getenv("OMP_WAIT_POLICY") || std::getenv(spin_count)) return;
  if (omp_get_proc_bind() != omp_proc_bind_false) return;
  if (::getauxval(AT_BASE) == 0) return;  // by the loader's command line, which is not known here
  ::setenv(spin_count, "1000", 1);
  const auto itself = ::getauxval(AT_EXECFN);
  ::execv(reinterpret_cast<const char*>(itself), argv);  // where that cannot be, it spins
}

}  // namespace

int main(int argc, char** argv) {
  using namespace linnet;
  wait_with_little_spinning(argv);
  set_threads(threads());
  app::let_signals_end_us();
  app::reserve_standard_streams();
  app::explain_lost_pages();
  std::signal(SIGXFSZ, SIG_IGN);  // a file that grows too large is an error of writing, not a death
  std::signal(SIGPIPE, SIG_IGN);  // so is a reader that went away, as tee does of the Ctrl-C that stops a run
  CLI::App command("Linear diffusion transformers: train, paint and measure, without Python.", "linnet");
  command.formatter(std::make_shared<app::HelpFormatter>());
  command.set_version_flag("--version", "linnet " LINNET_VERSION);
  command.require_subcommand(1);
  const app::Verb verbs(&command);
  app::add_generate(verbs);
  app::add_train(verbs);
  app::add_data(verbs);
  app::add_eval(verbs);
  app::add_info(verbs);
  app::add_convert(verbs);
  app::add_encode(verbs);
  app::add_inherit(verbs);
  app::add_forward(verbs);
  app::add_quantize(verbs);
  app::add_tokenize(verbs);
  app::add_bench(verbs);
  try {
    command.parse(argc, argv);
    return ended(0);
  } catch (const CLI::Success& wish) {  // --help, --version
    return ended(command.exit(wish));
  } catch (const CLI::ParseError& error) {
    const app::WrongUsage wrong = app::explain(command, {argv + std::min(argc, 1), argv + argc}, error);
    failed(wrong.sentence.c_str(), 2);
    app::tell(fmt::format("Try \"{} --help\".\n", wrong.help));
    return 2;
  } catch (const FailedElsewhere& failure) {  // which that process tells of
    return failure.exit_code;
  } catch (const std::exception& error) {
    return app::tell_failure(error);
  } catch (const app::Interrupted& interruption) {
    if (process_share().index == 0) app::tell("linnet: interrupted\n");
    return interruption.exit_code;
  }
}
