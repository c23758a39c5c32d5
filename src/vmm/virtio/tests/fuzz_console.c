/* Both rings of a console whose host reads slowly: the input's last byte says how much it takes
 * at a time. */
#include "vmm/virtio/console.c"

#include "vmm/virtio/tests/fuzz_device.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* ---- a stream in the place of device/stream.c's ---- */

static size_t room, wanted, taken;

int stream_create(struct loop *loop, int in_fd, int out_fd, const struct stream_ops *stream,
                  void *arg, struct stream **ret, struct err *err)
{
        (void)loop, (void)in_fd, (void)out_fd, (void)stream, (void)arg, (void)ret;
        return err_plain(err, ENOSYS, "not here");
}

void stream_destroy(struct stream *stream)
{
        (void)stream;
}

size_t stream_put(struct stream *stream, const uint8_t *bytes, size_t size)
{
        (void)stream;
        size_t n = size < room ? size : room;
        for (size_t i = 0; i < n; i++)
                taken += bytes[i]; /* as one who reads them all */
        room -= n;
        return n;
}

size_t stream_waiting(struct stream *stream, uint8_t ret[STREAM_BUFFER_SIZE])
{
        (void)stream, (void)ret;
        return 0;
}

void stream_restore(struct stream *stream, const uint8_t *bytes, size_t size)
{
        (void)stream, (void)bytes, (void)size;
}

size_t stream_room(struct stream *stream)
{
        (void)stream;
        return room;
}

void stream_want(struct stream *stream, size_t size)
{
        (void)stream;
        wanted = size;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        static struct console c;
        static const uint8_t input[3000];
        if (!c.virtio.queues_length) {
                virtio_init(&c.virtio, fuzz_machine_get(), VIRTIO_CONSOLE, "virtio-console", &ops,
                            0);
                virtio_queue(&c.virtio, 64);
                virtio_queue(&c.virtio, 64);
        }
        fuzz_device_begin(&c.virtio, data, size);
        c.sent = 0;
        size_t step = size ? 1 + 16u * data[size - 1] : 1;
        for (unsigned i = 0; i < 4; i++) {
                room = step;
                if (virtio_live(&c.virtio))
                        notify(&c.virtio, TRANSMIT);
                room = step;
                drained(&c);
                if (virtio_live(&c.virtio))
                        notify(&c.virtio, RECEIVE);
                arrived(&c, input, wanted < sizeof(input) ? wanted : sizeof(input));
        }
        stop(&c.virtio);
        return 0;
}
