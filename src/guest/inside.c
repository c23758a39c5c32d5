#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "agent/message.h"
#include "base/auto.h"
#include "base/str.h"
#include "guest/guest.h"

static void set_text(char **text, const char *value)
{
        free(*text);
        *text = value ? xstrdup(value) : NULL;
}

/* Bind mounts come from the share; everything else is the guest kernel's own. */
static void take_mounts(struct oci_spec *spec)
{
        for (size_t i = 0; i < spec->mounts_length; i++) {
                struct oci_mount *mount = &spec->mounts[i];
                if (!guest_mount_is_bind(mount))
                        continue;
                free(mount->source);
                mount->source = xasprintf(AGENT_SHARE "/mounts/%zu", i);
        }
}

/* Whatever was to be joined is the host's, and not in the guest: jail.c has seen to it, or
 * has joined it itself. */
static void renew_namespaces(struct oci_linux *linux_)
{
        for (size_t i = 0; i < linux_->namespaces_length; i++)
                set_text(&linux_->namespaces[i].path, NULL);
}

static void drop_net_devices(struct oci_linux *linux_)
{
        struct oci_linux *dropped = new0(struct oci_linux);
        dropped->net_devices = linux_->net_devices;
        dropped->net_devices_length = linux_->net_devices_length;
        linux_->net_devices = NULL;
        linux_->net_devices_length = 0;
        json_free(&oci_spec_shape, &(struct oci_spec){ .linux_ = dropped });
}

static void drop_host_limits(struct oci_resources *resources)
{
        if (!resources)
                return;
        if (resources->cpu) {
                set_text(&resources->cpu->cpus, NULL);
                set_text(&resources->cpu->mems, NULL);
                *resources->cpu = (struct oci_cpu){ 0 };
        }
        json_free(&oci_resources_shape,
                  &(struct oci_resources){
                          .block_io = resources->block_io,
                          .network = resources->network,
                          .hugepage_limits = resources->hugepage_limits,
                          .hugepage_limits_length = resources->hugepage_limits_length,
                          .rdma = resources->rdma,
                          .rdma_length = resources->rdma_length,
                  });
        resources->block_io = NULL;
        resources->network = NULL;
        resources->hugepage_limits = NULL;
        resources->hugepage_limits_length = 0;
        resources->rdma = NULL;
        resources->rdma_length = 0;
        if (resources->memory) { /* there is no swap in the guest */
                resources->memory->has_swap = false;
                resources->memory->has_swappiness = false;
        }
}

/* Only those of the container's own start run in the guest. */
static void drop_host_hooks(struct oci_spec *spec)
{
        struct oci_hooks *old = spec->hooks;
        if (!old)
                return;
        spec->hooks = xcalloc(1, sizeof(*spec->hooks));
        spec->hooks->start_container = old->start_container;
        spec->hooks->start_container_length = old->start_container_length;
        old->start_container = NULL;
        old->start_container_length = 0;
        json_free(&oci_spec_shape, &(struct oci_spec){ .hooks = old });
}

int guest_make_inside(const char *config, bool layered, char **ret_text, struct err *err)
{
        struct oci_spec spec;
        int r = oci_spec_parse(config, strlen(config), &spec, err);
        if (r < 0)
                return r;
        r = guest_check_parts(&spec, err);
        if (r < 0) {
                json_free(&oci_spec_shape, &spec);
                return r;
        }
        set_text(&spec.root->path, layered ? AGENT_ROOT : AGENT_SHARE "/rootfs");
        take_mounts(&spec);
        renew_namespaces(spec.linux_);
        drop_net_devices(spec.linux_);
        drop_host_limits(spec.linux_->resources);
        drop_host_hooks(&spec);
        set_text(&spec.linux_->cgroups_path, "/" GUEST_ID);
        set_text(&spec.linux_->mount_label, NULL);
        set_text(&spec.process->apparmor_profile, NULL);
        set_text(&spec.process->selinux_label, NULL);
        spec.linux_->rootfs_propagation = OCI_PROPAGATION_UNSET;
        *ret_text = json_encode_text(&oci_spec_shape, &spec, false);
        json_free(&oci_spec_shape, &spec);
        return 0;
}
