// Files that another program makes shorter while they are read. A mapped file's lost pages end a program by
// SIGBUS, which tells nobody anything; this makes it a sentence. The command's alone: to who embeds the
// library, signals are not ours.
#pragma once

namespace linnet::app {

/// From now on whoever touches a page that is no longer behind a mapped file says which file that is, and the
/// program ends with exit code 1. What else causes SIGBUS ends it as it would have.
void explain_lost_pages();

}  // namespace linnet::app
