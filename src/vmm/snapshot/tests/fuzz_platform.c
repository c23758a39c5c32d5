/* A hostile state of a whole small machine: one vCPU of the software provider, its chips and the
 * devices of the platform. The input is a state file, whose checksum and size are put right. What
 * is loaded goes on: ports are read, timers expire, and it is saved again. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/auto.h"
#include "base/clock.h"
#include "base/str.h"
#include "vmm/device/edu.h"
#include "vmm/device/keyboard.h"
#include "vmm/device/pit.h"
#include "vmm/device/power.h"
#include "vmm/device/rtc.h"
#include "vmm/device/serial.h"
#include "vmm/hotplug/hotplug.h"
#include "vmm/layout.h"
#include "vmm/pci/pci.h"
#include "vmm/snapshot/cpus.h"
#include "vmm/snapshot/devices.h"
#include "vmm/snapshot/tests/mend.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct machine *build(struct loop *loop)
{
        const struct machine_options options = { .cpu = &vcpu_soft,
                                                 .vcpus = 1,
                                                 .memory_bytes = MEMORY_SIZE_MIN };
        struct machine *m;
        struct keyboard *keyboard;
        struct power *power;
        struct hotplug *hotplug;
        struct err err = { 0 };
        if (machine_create(loop, &options, &m, &err) < 0 || pci_create(m, &err) < 0 ||
            pit_create(m, &err) < 0 || rtc_create(m, &err) < 0 ||
            keyboard_create(m, &keyboard, &err) < 0 || power_create(m, false, &power, &err) < 0 ||
            hotplug_create(m, power, 0, 0, &hotplug, &err) < 0 ||
            serial_create(m, LAYOUT_PORT_SERIAL, LAYOUT_IRQ_SERIAL, -1, -1, &err) < 0 ||
            edu_create(m, &err) < 0)
                abort();
        return m;
}

static void save(struct machine *m)
{
        struct state_writer w;
        struct err err = { 0 };
        const void *data;
        size_t size;
        state_writer_init(&w, clock_monotonic_ns());
        if (cpus_save(m, &w, &err) < 0 || devices_save(m, &w, &err) < 0 ||
            state_seal(&w, &data, &size, &err) < 0)
                abort();
        state_writer_finish(&w);
}

static void go_on(struct machine *m)
{
        for (uint32_t port = 0; port < 0x1000; port++) {
                uint64_t value;
                bus_read(&m->pio, port, 1, &value);
        }
        for (unsigned i = 0; i < 4; i++)
                loop_step(m->loop, 0);
        save(m);
}

/* All in the order of a restore: snapshot_load(). */
static int load(struct machine *m, struct state_reader *reader, struct err *err)
{
        int r = cpus_load(m, reader, err);
        if (r == 0)
                r = devices_load(m, reader, err);
        return r < 0 ? r : state_all_taken(reader, err);
}

static void leave(void *arg)
{
        loop_exit(arg, 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        struct loop *loop;
        struct state_reader reader = { 0 };
        struct err err = { 0 };
        if (size < STATE_HEADER_SIZE || loop_create(&loop, &err) < 0)
                return 0;
        struct machine *m = build(loop);
        auto_free uint8_t *copy = xmemdup(data, size);
        state_mend(copy, size);
        int r = state_reader_init(&reader, "fuzz", copy, size, clock_monotonic_ns(), &err);
        if (r == 0)
                r = load(m, &reader, &err);
        if (r == 0)
                go_on(m);
        else if (!err.text[0])
                abort();
        state_reader_finish(&reader);
        machine_destroy(m);
        loop_post(loop, leave, loop); /* the serial port's stream goes with its last function */
        loop_run(loop);
        loop_destroy(loop);
        return 0;
}
