/* The control socket's request for a snapshot: PUT /vm/snapshot, of a machine that is paused. The
 * empty file for its memory comes as a descriptor; the answer is the machine's state. */
#pragma once

#include "http/server.h"
#include "vmm/vm.h"

void saving_answer(struct http_request *request, struct vm *vm);
