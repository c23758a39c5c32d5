#include "vmm/snapshot/devices.h"

#include <errno.h>

#include "base/str.h"

static int save_nothing(struct device *device, struct state_writer *writer, struct err *err)
{
        (void)device, (void)writer, (void)err;
        return 0;
}

static int load_nothing(struct device *device, struct state_section *section, struct err *err)
{
        (void)device, (void)section, (void)err;
        return 0;
}

const struct state_ops state_nothing = { 1, save_nothing, load_nothing };

int devices_save(const struct machine *m, struct state_writer *writer, struct err *err)
{
        list_for_each (struct device, d, &m->devices, node) {
                if (!d->state)
                        return err_plain(err, ENOTSUP,
                                         "device '%s' cannot be saved; a machine without it can be",
                                         d->name);
                state_begin(writer, d->name, machine_device_number(m, d), d->state->version);
                int r = d->state->save(d, writer, err);
                if (r < 0)
                        return r;
                state_close(writer);
        }
        return 0;
}

int devices_load(const struct machine *m, struct state_reader *reader, struct err *err)
{
        list_for_each (struct device, d, &m->devices, node) {
                struct state_section *section = NULL;
                if (!d->state)
                        return err_plain(err, ENOTSUP,
                                         "device '%s' cannot be restored; a machine without it "
                                         "can be",
                                         d->name);
                int r = state_take(reader, d->name, machine_device_number(m, d), d->state->version,
                                   &section, err);
                if (r == 0)
                        r = d->state->load(d, section, err);
                if (r == 0)
                        r = state_end(section, err);
                if (r < 0)
                        return r;
        }
        return 0;
}
