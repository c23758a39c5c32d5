/* The control socket: HTTP and JSON on a Unix socket, for who runs the VM.
 *
 *   GET  /vm                        state, processor, memory, configuration
 *   PUT  /vm/config                 the configuration, before the start
 *   POST /vm/start                  starts what was configured
 *   POST /vm/pause, /vm/resume
 *   POST /vm/shutdown               presses the power button
 *   POST /vm/stop                   ends it at once, as pulling the plug does
 *   POST /vm/send-key               {"keys": "ctrl-alt-delete"}; see keys.h
 *   GET  /vm/cpus                   what each vCPU did
 *   GET  /vm/cpus/{index}/registers
 *   GET  /vm/memory?address=&size=  guest-physical memory, raw
 *   GET  /vm/balloon                sizes, and the guest's own statistics
 *   PUT  /vm/balloon                {"target_mib": 64}: what the guest shall give back
 *   GET  /vm/devices                what was attached
 *   PUT  /vm/devices/{name}         attaches {"disk": …} or {"network": …}, whose file or tap
 *                                   comes as a descriptor (SCM_RIGHTS) with the request
 *   DELETE /vm/devices/{name}       answers when the guest has let go of it
 *   GET  /metrics                   counters in Prometheus' text format
 *
 * Actions answer 204. Errors are {"message": text}: 400 for a request that is not
 * one, 404 for what is not there, 409 for what the VM's state forbids, 504 for a guest that does
 * not do its part.
 *
 * Whoever may connect may do everything: the socket is made with mode 0600.
 *
 * Threads: the loop's.
 */
#pragma once

#include "vmm/vm.h"

struct control;

/* Serves `listen_fd`, which is taken over (also on failure). `config` stays the caller's
 * and is what /vm/config fills in; `start` is called when /vm/start has been answered. */
int control_create(struct loop *loop, int listen_fd, struct vm_config *config,
                   void (*start)(void *arg), void *arg, struct control **ret, struct err *err);
void control_destroy(struct control *control);

/* The machine that runs now; NULL when it does no more. */
void control_set_vm(struct control *control, struct vm *vm);
