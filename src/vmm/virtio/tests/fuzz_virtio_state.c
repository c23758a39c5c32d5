/* Any bytes as the state of a virtio device, which then goes on: its rings are looked at, and it is
 * reset. The first byte says which device and which transport; the rest is its section, and all of
 * it is the guest's memory. */
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/str.h"
#include "loop/loop.h"
#include "vmm/pci/pci.h"
#include "vmm/snapshot/state.h"
#include "vmm/virtio/balloon.h"
#include "vmm/virtio/blk.h"
#include "vmm/virtio/console.h"
#include "vmm/virtio/net.h"
#include "vmm/virtio/rng.h"
#include "vmm/virtio/tap.h"
#include "vmm/virtio/tests/fuzz_device.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The network's tap is /dev/null. */
int tap_set_offloads(int fd, unsigned flags)
{
        (void)fd, (void)flags;
        return 0;
}

int tap_attach(int fd, bool attached)
{
        (void)fd, (void)attached;
        return 0;
}

static int make_blk(struct machine *m, struct err *err)
{
        char path[32];
        auto_fd fd = memfd_create("image", MFD_CLOEXEC);
        struct disk *disk = NULL;
        snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
        const struct disk_options options = { .path = path, .format = DISK_RAW };
        if (fd < 0 || ftruncate(fd, 65536) < 0 || disk_open(&options, &disk, err) < 0)
                abort();
        return virtio_blk_create(m, disk, &(struct blk_options){ 0 }, err);
}

static int make_net(struct machine *m, struct err *err)
{
        static int null_fd = -1;
        if (null_fd < 0)
                null_fd = open("/dev/null", O_RDWR | O_NONBLOCK | O_CLOEXEC);
        const int fds[] = { null_fd, null_fd };
        const struct net_options options = { .fds = fds, .pairs = 2 };
        return virtio_net_create(m, &options, err);
}

static int make_console(struct machine *m, struct err *err)
{
        return virtio_console_create(m, -1, -1, err);
}

static int make_balloon(struct machine *m, struct err *err)
{
        struct balloon *balloon;
        return virtio_balloon_create(m, &balloon, err);
}

static int (*const makers[])(struct machine *, struct err *) = { virtio_rng_create, make_console,
                                                                 make_balloon, make_net, make_blk };

static void leave(void *arg)
{
        loop_exit(arg, 0);
}

static void run_loop(struct machine *m)
{
        loop_post(m->loop, leave, m->loop);
        loop_run(m->loop);
}

/* As the machine that goes on does: what was put off to the loop, and the driver's next words. */
static void go_on(struct machine *m, struct virtio_device *d)
{
        run_loop(m);
        pthread_mutex_lock(&d->lock);
        for (unsigned i = 0; i < d->queues_length; i++)
                virtio_notified(d, i);
        pthread_mutex_unlock(&d->lock);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        struct machine *m = fuzz_machine_get();
        struct err err = { 0 };
        if (!size)
                return 0;
        list_init(&m->devices);
        bus_init(&m->mmio, "MMIO");
        bus_init(&m->pio, "PIO");
        uint8_t *ram = memory_at(&m->memory, gpa(0), FUZZ_BYTES);
        memset(ram, 0, FUZZ_BYTES);
        memcpy(ram, data, size < FUZZ_BYTES ? size : FUZZ_BYTES);
        if (loop_create(&m->loop, &err) < 0 || pci_create(m, &err) < 0 ||
            (data[0] & 0x80 && virtio_mmio_create(m, &err) < 0) ||
            makers[(data[0] & 0x7f) % ELEMENTS(makers)](m, &err) < 0)
                abort();
        struct virtio_device *d = container_of(machine_last_device(m), struct virtio_device,
                                               device);
        struct state_section s = {
                .file = "fuzz", .name = "device.0", .version = 1, .data = data + 1, .size = size - 1
        };
        if (d->device.state->load(&d->device, &s, &err) == 0)
                go_on(m, d);
        else if (!err.text[0] || atomic_load(&d->status))
                abort();
        for (struct device *each; (each = machine_last_device(m));)
                machine_remove_device(m, each);
        run_loop(m); /* lets go of streams */
        loop_destroy(m->loop);
        bus_finish(&m->mmio);
        bus_finish(&m->pio);
        return 0;
}
