use srk::diffusion::{process::*, sampler::*, schedule::*, system::*};
use srk::engine::device::DType;
use srk::models::{weights::WeightsFile, *};
fn main() {
    let process = Process::ResShift { steps: 4, kappa: 0.6, eta: EtaSchedule::Paper { first: 0.04, last: 0.999, power: 1.0 }, input_scale: InputScale::None, first_t: 1 };
    let c = SystemConfig { model: ModelConfig::DualDomainGrid(Default::default()), diffusion: Diffusion { process, prediction: Prediction::Residual, sampler: Sampler::default(), enlarge: Enlarge::Bicubic, t_weights: vec![] }, default_steps: None };
    let net = c.model.build(1);
    println!("{}", serde_json::to_string(&c).unwrap());
    println!("{:?}", c.diffusion.process.chain());
    let m = c.metadata(&[("srk.license", "CC0-1.0".into())]);
    WeightsFile::of(net.parameters(), m).write(std::path::Path::new("weights/srk-x4.safetensors"), DType::F16).unwrap();
}
