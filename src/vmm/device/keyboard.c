#include "vmm/device/keyboard.h"

#include <errno.h>

#include "base/auto.h"
#include "base/str.h"
#include "vmm/snapshot/state.h"

#define PORT_DATA      0x60
#define PORT_COMMAND   0x64
#define GSI_KEYBOARD   1
#define QUEUE_SIZE     64
#define STATUS_FULL    0x01
#define STATUS_SYSTEM  0x04
#define STATUS_COMMAND 0x08
#define STATUS_UNLOCK  0x10
#define CONFIG_IRQ     0x01
#define CONFIG_OFF     0x10 /* keyboard clock held */
#define OUTPUT_RUN     0x01 /* output port bit 0: low resets the processor */

struct keyboard {
        struct device device;
        struct machine *machine;
        pthread_mutex_t lock;
        uint8_t queue[QUEUE_SIZE];
        unsigned head, length;
        uint8_t config, output;
        uint8_t pending;   /* controller command that waits for its data byte */
        uint8_t parameter; /* keyboard command that waits for its byte */
        bool scanning, raised;
};

static void update(struct keyboard *k)
{
        bool raised = k->length && k->config & CONFIG_IRQ && !(k->config & CONFIG_OFF);
        if (raised == k->raised)
                return;
        k->raised = raised;
        irq_line(&k->machine->irq, GSI_KEYBOARD, raised);
}

static void push(struct keyboard *k, uint8_t byte)
{
        if (k->length < QUEUE_SIZE)
                k->queue[(k->head + k->length++) % QUEUE_SIZE] = byte;
}

static void controller_command(struct keyboard *k, uint8_t command)
{
        switch (command) {
        case 0x20:
                push(k, k->config);
                break;
        case 0x60:
        case 0xd1:
        case 0xd2:
                k->pending = command;
                break;
        case 0xaa:
                push(k, 0x55);
                break;
        case 0xab:
                push(k, 0);
                break;
        case 0xad:
                k->config |= CONFIG_OFF;
                break;
        case 0xae:
                k->config &= (uint8_t)~CONFIG_OFF;
                break;
        case 0xd0:
                push(k, k->output);
                break;
        default:
                /* 0xf0 to 0xff pulse the low lines that are 0 in the command. */
                if (command >= 0xf0 && !(command & OUTPUT_RUN))
                        machine_end(k->machine, MACHINE_RESET, 0, NULL);
                break;
        }
}

static void controller_data(struct keyboard *k, uint8_t value)
{
        uint8_t command = k->pending;
        k->pending = 0;
        if (command == 0x60)
                k->config = value;
        else if (command == 0xd2)
                push(k, value);
        else if (!(value & OUTPUT_RUN))
                machine_end(k->machine, MACHINE_RESET, 0, NULL);
        else
                k->output = value;
}

static void keyboard_command(struct keyboard *k, uint8_t command)
{
        if (k->parameter) {
                bool asks_set = k->parameter == 0xf0 && command == 0;
                k->parameter = 0;
                push(k, 0xfa);
                if (asks_set)
                        push(k, 2);
                return;
        }
        push(k, command == 0xee ? 0xee : 0xfa);
        switch (command) {
        case 0xed: /* lights */
        case 0xf0: /* scan code set */
        case 0xf3: /* repeat rate */
                k->parameter = command;
                break;
        case 0xf2:
                push(k, 0xab);
                push(k, 0x83);
                break;
        case 0xf4:
                k->scanning = true;
                break;
        case 0xf5:
                k->scanning = false;
                break;
        case 0xff:
                k->scanning = true;
                push(k, 0xaa);
                break;
        default:
                break;
        }
}

static uint64_t data_read(void *device, uint64_t offset, unsigned size)
{
        struct keyboard *k = device;
        (void)offset, (void)size;
        uint8_t byte = k->queue[k->head];
        if (k->length) {
                k->head = (k->head + 1) % QUEUE_SIZE;
                k->length--;
                /* An edge for each byte. */
                if (k->raised) {
                        k->raised = false;
                        irq_line(&k->machine->irq, GSI_KEYBOARD, false);
                }
        }
        update(k);
        return byte;
}

static void data_write(void *device, uint64_t offset, unsigned size, uint64_t value)
{
        struct keyboard *k = device;
        (void)offset, (void)size;
        if (k->pending)
                controller_data(k, (uint8_t)value);
        else
                keyboard_command(k, (uint8_t)value);
        update(k);
}

static uint64_t status_read(void *device, uint64_t offset, unsigned size)
{
        const struct keyboard *k = device;
        (void)offset, (void)size;
        return STATUS_SYSTEM | STATUS_UNLOCK | (k->length ? STATUS_FULL : 0) |
               (k->pending ? STATUS_COMMAND : 0);
}

static void command_write(void *device, uint64_t offset, unsigned size, uint64_t value)
{
        struct keyboard *k = device;
        (void)offset, (void)size;
        controller_command(k, (uint8_t)value);
        update(k);
}

static const struct bus_ops data_bus = { data_read, data_write };
static const struct bus_ops command_bus = { status_read, command_write };

/* ---- in and out of a snapshot ---- */

static const struct state_field fields[] = {
        STATE_ARRAY(struct keyboard, queue, UINT8_MAX),
        STATE_FIELD(struct keyboard, head, QUEUE_SIZE - 1),
        STATE_FIELD(struct keyboard, length, QUEUE_SIZE),
        STATE_FIELD(struct keyboard, config, UINT8_MAX),
        STATE_FIELD(struct keyboard, output, UINT8_MAX),
        STATE_FIELD(struct keyboard, pending, UINT8_MAX),
        STATE_FIELD(struct keyboard, parameter, UINT8_MAX),
        STATE_FIELD(struct keyboard, scanning, 1),
};

static int save(struct device *device, struct state_writer *w, struct err *err)
{
        struct keyboard *k = container_of(device, struct keyboard, device);
        (void)err;
        pthread_mutex_lock(&k->lock);
        state_put_fields(w, k, fields, ELEMENTS(fields));
        pthread_mutex_unlock(&k->lock);
        return 0;
}

static int restore(struct device *device, struct state_section *s, struct err *err)
{
        struct keyboard *k = container_of(device, struct keyboard, device);
        state_get_fields(s, k, fields, ELEMENTS(fields));
        int r = state_end(s, err);
        if (r == 0)
                update(k);
        return r;
}

static const struct state_ops state = { 1, save, restore };

static void destroy(struct device *device)
{
        struct keyboard *k = container_of(device, struct keyboard, device);
        pthread_mutex_destroy(&k->lock);
        free(k);
}

int keyboard_create(struct machine *machine, struct keyboard **ret, struct err *err)
{
        struct keyboard *k = new0(struct keyboard);
        k->machine = machine;
        k->config = CONFIG_IRQ;
        k->output = OUTPUT_RUN;
        pthread_mutex_init(&k->lock, NULL);
        machine_add_device(machine, &k->device, "keyboard", destroy);
        k->device.state = &state;
        int r = bus_add(&machine->pio,
                        &(struct bus_region){ PORT_DATA, 1, &data_bus, k, &k->lock, "keyboard" },
                        err);
        if (r == 0)
                r = bus_add(&machine->pio,
                            &(struct bus_region){ PORT_COMMAND, 1, &command_bus, k, &k->lock,
                                                  "keyboard controller" },
                            err);
        if (r == 0)
                *ret = k;
        return r;
}

int keyboard_send(struct keyboard *k, const uint8_t *codes, size_t length)
{
        pthread_mutex_lock(&k->lock);
        int r = k->length + length > QUEUE_SIZE ? -ENOSPC : 0;
        for (size_t i = 0; r == 0 && i < length; i++)
                push(k, codes[i]);
        update(k);
        pthread_mutex_unlock(&k->lock);
        return r;
}
