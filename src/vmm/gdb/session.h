/* A conversation in gdb's remote serial protocol: packets in, answers and requests to the
 * machine out. No I/O and no threads: whoever owns it passes bytes in, sends what is in
 * `out`, and tells when the guest has stopped.
 *
 * vCPUs are threads 1, 2, … . All of them stand, or those run that the last resumption
 * named ("all-stop"). Addresses are linear, by the page tables of the selected vCPU.
 *
 *     client          session                       machine
 *     vCont;s:1 ----> resume([step, stand]) ------> runs
 *               <---- T05thread:01; <-------------- gdb_session_stopped()
 *
 * Source: the GDB manual, appendix "GDB Remote Serial Protocol".
 */
#pragma once

#include "base/buf.h"
#include "base/err.h"
#include "cpu/cpu.h"
#include "vmm/gdb/packet.h"
#include "vmm/gdb/points.h"

#define GDB_VCPUS_MAX 64

enum gdb_action { GDB_STAND, GDB_CONTINUE, GDB_STEP };

struct gdb_stop {
        unsigned vcpu;
        enum { GDB_STOPPED, GDB_INTERRUPTED, GDB_AT_INT3, GDB_AT_POINT } kind;
        enum gdb_point point; /* GDB_AT_POINT */
        uint64_t address;     /* of a watchpoint */
};

/* Functions return 0 or -errno. All but interrupt() are called while vCPUs stand. */
struct gdb_target {
        int (*get_state)(void *arg, unsigned vcpu, struct cpu_state *ret);
        int (*set_state)(void *arg, unsigned vcpu, const struct cpu_state *state, struct err *err);
        int (*read)(void *arg, unsigned vcpu, uint64_t address, uint8_t *bytes, size_t size);
        int (*write)(void *arg, unsigned vcpu, uint64_t address, const uint8_t *bytes, size_t size);
        int (*point)(void *arg, unsigned vcpu, enum gdb_point kind, uint64_t address, uint64_t size,
                     bool set);
        /* One action per vCPU. The session is told when they have stopped. */
        int (*resume)(void *arg, const uint8_t *actions);
        /* Stops what runs, and tells the session before it returns. */
        void (*interrupt)(void *arg);
        void (*kill)(void *arg);
};

struct gdb_session {
        const struct gdb_target *target;
        void *arg;
        unsigned vcpus;
        unsigned general;  /* the vCPU that registers and memory are of */
        unsigned resuming; /* of a resumption without threads: a vCPU, or `vcpus` for all */
        bool running;
        bool silent;   /* no acknowledgements */
        bool over;     /* detached or killed */
        bool answered; /* the packet has no answer, or a later one */
        struct gdb_stop stop;
        struct buf out;   /* to be sent, then emptied by the owner */
        struct buf reply; /* the answer being made */
        struct buf last;  /* as it was sent, for another time */
        struct gdb_packet packet;
};

/* The guest stands. The target is borrowed. */
void gdb_session_init(struct gdb_session *session, const struct gdb_target *target, void *arg,
                      unsigned vcpus);
void gdb_session_finish(struct gdb_session *session);

/* Takes bytes up to the end of one packet; returns how many. */
size_t gdb_session_take(struct gdb_session *session, const uint8_t *bytes, size_t size);

void gdb_session_stopped(struct gdb_session *session, const struct gdb_stop *stop);
/* The guest is no more. */
void gdb_session_ended(struct gdb_session *session);
