//! From the list of networks in `mod.rs` to their modules, the configuration of any of them, and the table of kinds.

/// A line is `module::Configuration, Variant, "kind", "what it is";`. The module's file ends with the rest of the
/// entry, `impl Kind for Configuration`.
macro_rules! models {
    ($($module:ident :: $config:ident, $variant:ident, $name:literal, $about:literal;)*) => {
        $(pub mod $module;)*

        /// Which network, and its sizes: the `[model]` section of a recipe and the `srk.config` of a file.
        #[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
        #[serde(tag = "kind")]
        pub enum ModelConfig {
            $(
                #[doc = $about]
                #[serde(rename = $name)]
                $variant($module::$config),
            )*
        }

        impl ModelConfig {
            /// The entries of all networks.
            pub const KINDS: &'static [Known<Self>] = &[$(Known {
                name: $name,
                keys: <$module::$config as Kind>::KEYS,
                of_shapes: |shapes| <$module::$config as Kind>::of_shapes(shapes).map(Self::$variant),
                narrow: || Self::$variant(<$module::$config as Kind>::narrow()),
                assumed: <$module::$config as Kind>::ASSUMED,
                meaning: <$module::$config as Kind>::MEANING,
                frozen: <$module::$config as Kind>::FROZEN,
            }),*];

            /// The network, its initial weights a function of `seed`.
            pub fn build(&self, seed: u64) -> Box<dyn Network> {
                match self { $(Self::$variant(c) => Kind::build(c, seed)),* }
            }

            /// As [`build`](Self::build), of sizes that come from elsewhere: nothing is allocated beyond `most`
            /// numbers in all parameters and buffers.
            ///
            /// # Errors
            /// [`TooLarge`](Unbuilt::TooLarge) if there are more; [`Unfit`](Unbuilt::Unfit) if sizes are beyond all
            /// reason or do not go together.
            pub fn build_within(&self, seed: u64, most: usize) -> Result<Box<dyn Network>, Unbuilt> {
                build_within(self, most, || self.build(seed))
            }

            /// The factor between low and high resolution.
            pub fn scale(&self) -> usize {
                match self { $(Self::$variant(c) => Kind::scale(c)),* }
            }

            /// Whether the network enlarges in one call, from low resolution straight to high, and knows no noise.
            pub const fn is_direct(&self) -> bool {
                match self { $(Self::$variant(_) => <$module::$config as Kind>::DIRECT),* }
            }

            /// Whether its weights told what is assumed of others.
            pub fn is_settled(&self) -> bool {
                match self { $(Self::$variant(c) => Kind::is_settled(c)),* }
            }

            /// Whether the part that is not trained is among its weights.
            pub fn is_whole(&self) -> bool {
                match self { $(Self::$variant(c) => Kind::is_whole(c)),* }
            }
        }
    };
}
pub(super) use models;
