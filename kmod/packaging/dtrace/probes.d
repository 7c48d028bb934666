#!/usr/sbin/dtrace -s
/*-
 * SPDX-License-Identifier: BSD-2-Clause
 *
 * Counts how often each of kqx's probes fires, and how often with the arguments that kqx(4)
 * documents: the ident is that of the knote, and what a change, a kick and an event carry is
 * what the system call carried.  Needs the kernel's types (CTF).
 *
 *	# dtrace -s probes.d -c "kqx-test run"
 */

#pragma D option quiet
#pragma D option dynvarsize=64m

syscall::kevent:entry
{
	self->changes = (int)arg2;
	self->events = arg3;
	self->delivered = 0;
}

syscall::kevent:entry
/self->changes == 1/
{
	this->change = (struct kevent *)copyin(arg1, sizeof (struct kevent));
	self->fflags = this->change->fflags;
	self->amount = this->change->data;
}

syscall::ioctl:entry
{
	self->argument = arg2;
}

kqx:::attach, kqx:::change, kqx:::expiry, kqx:::deliver, kqx:::detach
{
	this->knote = (struct knote *)arg0;
	this->right = this->knote->kn_kevent.ident == arg1;
}

kqx:::attach
{
	this->right = this->right && (int)arg2 >= 0;
	@errors["attach", (int)arg2] = count();
}

kqx:::change
/self->changes == 1/
{
	this->right = this->right && self->fflags == (uint32_t)arg2 &&
	    self->amount == (int64_t)arg3;
}

kqx:::change
{
	this->right = this->right && (int)arg4 >= 0;
	@errors["change", (int)arg4] = count();
}

kqx:::expiry
{
	/* A suite takes less than an hour. */
	this->right = this->right && arg2 < 3600000000000;
	@late = quantize(arg2);
}

kqx:::deliver
{
	self->delivered++;
	self->taken = (int64_t)arg2;
}

kqx:::kick
{
	this->line = (uint64_t *)copyin(self->argument, sizeof (uint64_t));
	/* A page of the pad has 64 lines. */
	this->right = *this->line == arg1 &&
	    arg1 < ((struct vm_object *)arg0)->size * 64;
}

kqx:::
{
	@fired[probename] = count();
	@right[probename] = sum(this->right ? 1 : 0);
}

/* The data of the only event of a call is the data of its only delivery. */
syscall::kevent:return
/self->delivered == 1 && arg1 == 1/
{
	this->event = (struct kevent *)copyin(self->events, sizeof (struct kevent));
	@fired["event"] = count();
	@right["event"] = sum(this->event->data == self->taken ? 1 : 0);
}

syscall::kevent:return
{
	self->changes = 0;
	self->events = 0;
	self->delivered = 0;
	self->fflags = 0;
	self->amount = 0;
	self->taken = 0;
}

syscall::ioctl:return
{
	self->argument = 0;
}

dtrace:::END
{
	printa("%s fired %@d right %@d\n", @fired, @right);
	printa("%s errno %d: %@d\n", @errors);
	printa("ns late:%@d", @late);
}
