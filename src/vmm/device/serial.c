#include "vmm/device/serial.h"

#include "base/auto.h"
#include "base/str.h"
#include "vmm/device/stream.h"
#include "vmm/snapshot/state.h"

#define FIFO_SIZE 64 /* deeper than the chip's 16: nobody can tell, and input is cheaper */

enum { RBR_THR, IER, IIR_FCR, LCR, MCR, LSR, MSR, SCR };

#define IER_RECEIVED 0x01
#define IER_THRE     0x02
#define IIR_NONE     0x01
#define IIR_THRE     0x02
#define IIR_RECEIVED 0x04
#define IIR_FIFOS    0xc0
#define FCR_ENABLE   0x01
#define FCR_CLEAR_IN 0x02
#define LCR_DLAB     0x80
#define MCR_OUT2     0x08
#define MCR_LOOP     0x10
#define LSR_READY    0x01
#define LSR_EMPTY    0x60 /* holding register and transmitter */
#define MSR_PRESENT  0xb0 /* carrier, ready, clear to send */

struct serial {
        struct device device;
        struct machine *machine;
        struct stream *stream;
        unsigned gsi;
        pthread_mutex_t lock;
        uint8_t ier, fcr, lcr, mcr, scr, divisor[2];
        uint8_t in[FIFO_SIZE];
        unsigned in_head, in_length;
        bool full;         /* the stream takes nothing now */
        bool thre_pending; /* interrupt not yet acknowledged by reading IIR */
        bool raised;
};

static uint8_t cause(const struct serial *s)
{
        if (s->ier & IER_RECEIVED && s->in_length)
                return IIR_RECEIVED;
        if (s->ier & IER_THRE && s->thre_pending)
                return IIR_THRE;
        return IIR_NONE;
}

static void update(struct serial *s)
{
        bool raised = cause(s) != IIR_NONE && s->mcr & MCR_OUT2;
        if (raised != s->raised) {
                s->raised = raised;
                irq_line(&s->machine->irq, s->gsi, raised);
        }
}

static void receive(struct serial *s, uint8_t byte)
{
        if (s->in_length < FIFO_SIZE)
                s->in[(s->in_head + s->in_length++) % FIFO_SIZE] = byte;
}

static uint8_t take(struct serial *s)
{
        if (!s->in_length)
                return 0;
        uint8_t byte = s->in[s->in_head];
        s->in_head = (s->in_head + 1) % FIFO_SIZE;
        s->in_length--;
        stream_want(s->stream, FIFO_SIZE - s->in_length);
        return byte;
}

static void transmit(struct serial *s, uint8_t byte)
{
        if (s->mcr & MCR_LOOP)
                receive(s, byte);
        else
                stream_put(s->stream, &byte, 1); /* lost where the driver ignores THRE */
        s->full = stream_room(s->stream) == 0;
        s->thre_pending = !s->full;
}

static uint64_t serial_read(void *device, uint64_t offset, unsigned size)
{
        struct serial *s = device;
        (void)size;
        uint8_t value = 0;
        bool latch = s->lcr & LCR_DLAB;
        switch (offset) {
        case RBR_THR:
                value = latch ? s->divisor[0] : take(s);
                break;
        case IER:
                value = latch ? s->divisor[1] : s->ier;
                break;
        case IIR_FCR:
                value = cause(s);
                if (value == IIR_THRE)
                        s->thre_pending = false;
                value |= s->fcr & FCR_ENABLE ? IIR_FIFOS : 0;
                break;
        case LCR:
                value = s->lcr;
                break;
        case MCR:
                value = s->mcr;
                break;
        case LSR:
                value = (s->in_length ? LSR_READY : 0) | (s->full ? 0 : LSR_EMPTY);
                break;
        case MSR:
                /* In loop-back the modem inputs are the control outputs. */
                value = s->mcr & MCR_LOOP ? (uint8_t)((s->mcr & 0x0c) << 4 | (s->mcr & 2) << 3 |
                                                      (s->mcr & 1) << 5)
                                          : MSR_PRESENT;
                break;
        case SCR:
                value = s->scr;
                break;
        default:
                break;
        }
        update(s);
        return value;
}

static void serial_write(void *device, uint64_t offset, unsigned size, uint64_t wide)
{
        struct serial *s = device;
        uint8_t value = (uint8_t)wide;
        (void)size;
        bool latch = s->lcr & LCR_DLAB;
        switch (offset) {
        case RBR_THR:
                if (latch)
                        s->divisor[0] = value;
                else
                        transmit(s, value);
                break;
        case IER:
                if (latch) {
                        s->divisor[1] = value;
                        break;
                }
                /* Enabling the interrupt while the register is empty raises it. */
                if (value & IER_THRE && !(s->ier & IER_THRE) && !s->full)
                        s->thre_pending = true;
                s->ier = value & 0x0f;
                break;
        case IIR_FCR:
                s->fcr = value;
                if (value & FCR_CLEAR_IN)
                        s->in_head = s->in_length = 0;
                break;
        case LCR:
                s->lcr = value;
                break;
        case MCR:
                s->mcr = value & 0x1f;
                break;
        case SCR:
                s->scr = value;
                break;
        default:
                break;
        }
        update(s);
}

static const struct bus_ops serial_bus = { serial_read, serial_write };

static void arrived(void *arg, const uint8_t *bytes, size_t size)
{
        struct serial *s = arg;
        pthread_mutex_lock(&s->lock);
        for (size_t i = 0; i < size; i++)
                receive(s, bytes[i]);
        stream_want(s->stream, FIFO_SIZE - s->in_length);
        update(s);
        pthread_mutex_unlock(&s->lock);
}

static void drained(void *arg)
{
        struct serial *s = arg;
        pthread_mutex_lock(&s->lock);
        s->full = false;
        s->thre_pending = true;
        update(s);
        pthread_mutex_unlock(&s->lock);
}

static const struct stream_ops stream_ops = { arrived, drained };

/* ---- in and out of a snapshot ---- */

static const struct state_field fields[] = {
        STATE_FIELD(struct serial, ier, UINT8_MAX),
        STATE_FIELD(struct serial, fcr, UINT8_MAX),
        STATE_FIELD(struct serial, lcr, UINT8_MAX),
        STATE_FIELD(struct serial, mcr, UINT8_MAX),
        STATE_FIELD(struct serial, scr, UINT8_MAX),
        STATE_ARRAY(struct serial, divisor, UINT8_MAX),
        STATE_ARRAY(struct serial, in, UINT8_MAX),
        STATE_FIELD(struct serial, in_head, FIFO_SIZE - 1),
        STATE_FIELD(struct serial, in_length, FIFO_SIZE),
        STATE_FIELD(struct serial, full, 1),
        STATE_FIELD(struct serial, thre_pending, 1),
};

static int save(struct device *device, struct state_writer *w, struct err *err)
{
        struct serial *s = container_of(device, struct serial, device);
        (void)err;
        pthread_mutex_lock(&s->lock);
        state_put_fields(w, s, fields, ELEMENTS(fields));
        pthread_mutex_unlock(&s->lock);
        return 0;
}

/* What the guest put out before is its old console's. This one is empty, and takes more. */
static int restore(struct device *device, struct state_section *section, struct err *err)
{
        struct serial *s = container_of(device, struct serial, device);
        state_get_fields(section, s, fields, ELEMENTS(fields));
        int r = state_end(section, err);
        if (r < 0)
                return r;
        s->thre_pending = s->thre_pending || s->full;
        s->full = false;
        stream_want(s->stream, FIFO_SIZE - s->in_length);
        update(s);
        return 0;
}

static const struct state_ops state = { 1, save, restore };

static void destroy(struct device *device)
{
        struct serial *s = container_of(device, struct serial, device);
        stream_destroy(s->stream);
        pthread_mutex_destroy(&s->lock);
        free(s);
}

int serial_create(struct machine *machine, uint16_t port, unsigned gsi, int in_fd, int out_fd,
                  struct err *err)
{
        struct serial *s = new0(struct serial);
        s->machine = machine;
        s->gsi = gsi;
        pthread_mutex_init(&s->lock, NULL);
        machine_add_device(machine, &s->device, "serial", destroy);
        s->device.state = &state;
        int r = stream_create(machine->loop, in_fd, out_fd, &stream_ops, s, &s->stream, err);
        if (r < 0)
                return r;
        stream_want(s->stream, FIFO_SIZE);
        return bus_add(
                &machine->pio,
                &(struct bus_region){ port, SERIAL_PORTS, &serial_bus, s, &s->lock, "serial" },
                err);
}
